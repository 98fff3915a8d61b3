"""Where torch finds the operators. A repository for Hugging Face's `kernels` has another, of its own."""

NAMESPACE = "aag_hf"
