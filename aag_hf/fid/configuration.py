"""Configuration of the Fusion-in-Decoder T5."""

from typing import Any

from transformers import T5Config


class FiDT5Config(T5Config):
    """A [`transformers.T5Config`] under the model type ``"fid_t5"``: Fusion-in-Decoder adds no setting of its own.

    ``FiDT5Config.from_pretrained`` takes the directory of a plain T5 (v1.0, v1.1, flan) as well.
    """

    model_type = "fid_t5"

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in the parent. The configuration of a plain T5 is read as one of ours."""
        config, unused = super().get_config_dict(*args, **kwargs)
        if config.get("model_type") == "t5":
            config["model_type"] = cls.model_type
        return config, unused
