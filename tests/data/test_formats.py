"""Files as people have them: each format with the smallest file that has its traits."""

import gzip
import json

import pytest

from aag_hf.cli.main import main
from aag_hf.data import read_records, write_records
from aag_hf.data.answers import has_answer
from aag_hf.data.bad_rows import BadRows
from aag_hf.data.files import read_rows
from aag_hf.data.pool import read_pool
from aag_hf.errors import InputError

SUVA = {"title": "Suva", "text": "Suva is the capital of Fiji."}
SUVA_ANSWERS = ["Suva", "Suva City"]
SQUAD_ANSWERS = [{"text": "Suva", "answer_start": 0}, {"text": "Suva", "answer_start": 0}]

LINES = {
    "NQ-open": ({"question": "q?", "answer": ["Suva", "Suva City"]}, SUVA_ANSWERS),
    "KILT": (
        {
            "id": "q1",
            "input": "q?",
            "output": [{"answer": "Suva", "provenance": []}, {"answer": "Suva City"}, {"provenance": [{"title": "x"}]}],
        },
        SUVA_ANSWERS,
    ),
    "TriviaQA on the Hub": (
        {
            "question": "q?",
            "question_id": "q1",
            "answer": {"value": "Suva", "aliases": ["Suva City", "Suva"], "normalized_aliases": ["suva"]},
        },
        SUVA_ANSWERS,
    ),
    "PopQA": ({"id": 7, "question": "q?", "obj": "x", "possible_answers": '["Suva", "Suva City"]'}, SUVA_ANSWERS),
    "EntityQuestions": ({"question": "q?", "answers": ["Suva", "Suva City"]}, SUVA_ANSWERS),
    "WebQuestions": (
        {"url": "u", "utterance": "q?", "targetValue": '(list (description Suva) (description "Suva City"))'},
        SUVA_ANSWERS,
    ),
    "a Python list as text": ({"question": "q?", "answers": "['Suva', \"Suva City\"]"}, SUVA_ANSWERS),
    "a Python list as the only answer": ({"question": "q?", "answer": "['Suva', 'Suva City']"}, SUVA_ANSWERS),
    "one answer": ({"question": "q?", "answer": "[sic] Suva"}, ["[sic] Suva"]),
}


def written(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", LINES)
def test_a_row_of_each_format_is_a_record(tmp_path, name):
    row, answers = LINES[name]
    (record,) = read_records(written(tmp_path / "a.jsonl", json.dumps(row) + "\n"))
    assert (record["question"], record["answers"]) == ("q?", answers)
    assert record["id"] == ({"KILT": "q1", "TriviaQA on the Hub": "q1", "PopQA": "7"}.get(name, "a-0"))
    ours = {"input", "output", "answer", "possible_answers", "utterance", "targetValue"}
    assert ours.isdisjoint(record)


@pytest.mark.parametrize("answer", ["['Suva' 'Suva City']", "['Suva',"])
def test_what_only_looks_like_a_list_is_refused_and_never_one_answer(tmp_path, answer):
    path = written(tmp_path / "a.jsonl", json.dumps({"question": "q?", "answer": answer}) + "\n")
    with pytest.raises(InputError, match="line 1: field 'answers': expected a list"):
        read_records(path)


def test_triviaqa_s_own_file(tmp_path):
    answer = {"Value": "Suva", "Aliases": ["Suva", "Suva City"], "NormalizedValue": "suva"}
    rows = [{"Question": "q?", "QuestionId": "tc_2", "Answer": answer, "EntityPages": []}]
    path = written(tmp_path / "web-dev.json", {"Data": rows, "Domain": "web", "Version": 1.0})
    assert read_records(path) == [{"id": "tc_2", "question": "q?", "answers": SUVA_ANSWERS, "EntityPages": []}]


def test_squad_s_own_file_and_the_hub_s_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    questions = [{"id": f"s{i}", "question": f"q{i}?", "answers": SQUAD_ANSWERS} for i in range(2)]
    articles = [{"title": "Suva", "paragraphs": [{"context": SUVA["text"], "qas": questions}]}]
    path = written(tmp_path / "dev-v1.1.json", {"version": "1.1", "data": articles})
    expected = [{"id": f"s{i}", "question": f"q{i}?", "answers": ["Suva"], "ctxs": [SUVA]} for i in range(2)]
    assert read_records(path) == expected
    hub = {"id": "s0", "title": "Suva", "context": SUVA["text"], "question": "q0?"}
    hub["answers"] = {"text": ["Suva", "Suva"], "answer_start": [0, 0]}
    assert read_records(datasets.Dataset.from_list([hub])) == expected[:1]
    assert read_pool([path]) == [SUVA]
    del questions[1]["question"]
    path = written(tmp_path / "bad.json", {"data": articles})
    with pytest.raises(InputError, match="record 1, question 2: field 'question'"):
        read_records(path)


def test_musique_s_own_rows(tmp_path):
    paragraphs = [{"idx": 0, "title": "Suva", "paragraph_text": SUVA["text"], "is_supporting": True}]
    row = {
        "id": "2hop__1",
        "paragraphs": paragraphs,
        "question": "q?",
        "answer": "Suva",
        "answer_aliases": ["Suva City"],
    }
    path = written(tmp_path / "musique.jsonl", json.dumps(row) + "\n")
    (record,) = read_records(path)
    assert (record["id"], record["answers"]) == ("2hop__1", SUVA_ANSWERS)
    assert record["ctxs"] == [SUVA | {"idx": 0, "is_supporting": True}] and "paragraphs" not in record
    assert read_pool([path]) == [SUVA]


@pytest.mark.parametrize("paragraphs", [[], [{"context": SUVA["text"]}], [{"context": "x", "qas": []}], "Suva"])
def test_a_row_with_a_question_is_one_record_whatever_its_paragraphs_are(tmp_path, paragraphs):
    row = {"id": "q1", "question": "q?", "answers": ["Suva"], "paragraphs": paragraphs}
    assert read_records(written(tmp_path / "a.jsonl", json.dumps(row) + "\n")) == [row]


@pytest.mark.parametrize("row", [{"paragraphs": []}, {"title": "Suva", "paragraphs": [{"qas": 5}]}])
def test_no_row_vanishes_for_its_paragraphs(tmp_path, row):
    path = written(tmp_path / "a.jsonl", json.dumps(SUVA) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_records(path, skip_bad=1)
    with pytest.raises(InputError, match="line 2: field 'text'"):
        read_pool([path])


def test_squad_s_questions_must_be_a_list(tmp_path):
    path = written(tmp_path / "a.json", {"data": [{"title": "Suva", "paragraphs": [{"context": "c", "qas": 5}]}]})
    with pytest.raises(InputError, match="record 1, question 1: expected a JSON object, found a JSON int"):
        read_records(path)


def test_hotpotqa_s_titles_that_are_no_list_are_kept_as_they_are(tmp_path):
    row = {"id": "h", "question": "q?", "answers": ["yes"], "context": {"title": 5, "sentences": [["a"]]}}
    assert read_records(written(tmp_path / "a.json", [row])) == [row]


def test_hotpotqa_s_own_file_and_the_hub_s_rows(tmp_path):
    row = {
        "_id": "5a8b",
        "question": "q?",
        "answer": "yes",
        "context": [["Suva", ["Suva is", " the capital of Fiji."]]],
    }
    (record,) = read_records(written(tmp_path / "hotpot.json", [row]))
    assert record == {"id": "5a8b", "question": "q?", "answers": ["yes"], "ctxs": [SUVA]}
    hub = {"id": "5a8b", "question": "q?", "answer": "yes"}
    hub["context"] = {"title": ["Suva"], "sentences": [["Suva is", " the capital of Fiji."]]}
    assert read_records(written(tmp_path / "hub.json", [hub])) == [record]


def test_dpr_s_questions_and_passages(tmp_path):
    path = written(tmp_path / "nq-test.qas.csv", "where is \"it\"?\t['Suva', \"King's Road\"]\nwho?\t['x']\n")
    assert read_records(path) == [
        {"id": "nq-test-0", "question": 'where is "it"?', "answers": ["Suva", "King's Road"]},
        {"id": "nq-test-1", "question": "who?", "answers": ["x"]},
    ]
    passages = 'id\ttext\ttitle\n1\t"Suva is ""the hub""."\tSuva\n2\tplain\tX\n'
    expected = [{"title": "Suva", "text": 'Suva is "the hub".'}, {"title": "X", "text": "plain"}]
    with gzip.open(tmp_path / "psgs.tsv.gz", "wt", encoding="utf-8") as file:
        file.write(passages)
    assert read_pool([tmp_path / "psgs.tsv.gz"]) == expected
    headless = written(tmp_path / "psgs.tsv", passages.partition("\n")[2].replace("\n", "\r\n"))
    assert read_pool([headless]) == expected


def test_tables_with_names(tmp_path):
    text = 'id\tsubj\tquestion\tpossible_answers\n7\tS\tq?\t["Suva", "Suva City"]\n'
    (record,) = read_records(written(tmp_path / "popQA.tsv", "\ufeff" + text.replace("\n", "\r\n")))
    assert record == {"id": "7", "subj": "S", "question": "q?", "answers": SUVA_ANSWERS}
    (record,) = read_records(written(tmp_path / "a.csv", 'question,answer\n"who, me?",Suva\n'))
    assert (record["question"], record["answers"]) == ("who, me?", ["Suva"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tb\tc\td\n", "names neither question nor text"),
        ("id\ttext\ttitle\n1\tx\ty\n2\tx\n", r"line 3: expected 3 fields \(id, text, title\), found 2"),
        ("id\ttext\ttitle\n1\t" + "x" * 200_000 + "\ty\n", "line 2: field larger than field limit"),
        ("question\tanswers\tanswers\nq?\ta\tb\n", "line 1: column 'answers' stands twice: keep one"),
    ],
)
def test_bad_tables_are_refused_by_file_and_line(tmp_path, text, said):
    with pytest.raises(InputError, match=f"a.tsv.*{said}"):
        list(read_rows(written(tmp_path / "a.tsv", text)))


@pytest.mark.parametrize(
    ("name", "text", "bad", "good"),
    [
        ("a.csv", 'question,answer\nq1?,a\nq2?,"b\nq3?,c\n', 3, ["q1?", "q3?"]),
        ("a.csv", 'question,answer\nq1?,a\nq2?,"b', 3, ["q1?"]),
        ("a.csv", 'question,answer\nq1?,"a\nq2?,b "c" d\nq3?,e\n', 2, ["q2?", "q3?"]),
        ("a.tsv", 'question\tanswer\nq1?\ta\nq2?\t"The\nq3?\tc\nq4?\td"\nq5?\te\n', 3, ["q1?", "q3?", "q4?", "q5?"]),
        ("psgs.tsv", '1\tHello\t"A\n2\tx\tB', 1, ["x"]),
        ("psgs.tsv", f'1\tHello\t"A\n{"2" * 9999}\tx\tB\n' + "3\ty\tC\n" * 40_000, 1, ["x", *["y"] * 40_000]),
    ],
)
def test_a_stray_quotation_mark_in_a_table_swallows_no_row(tmp_path, name, text, bad, good):
    path = written(tmp_path / name, text)
    with pytest.raises(InputError, match=f"{name}, line {bad}: a field begins with a quotation mark"):
        list(read_rows(path))
    assert [row.get("question", row.get("text")) for _, row in read_rows(path, BadRows(1))] == good


def test_quoted_fields_of_a_table_may_have_several_lines_and_commas(tmp_path):
    text = 'question,answer\n"who, ""me""\n, you?",a\n"The" Raven?,b\nq?,"c\n"'
    rows = list(read_rows(written(tmp_path / "a.csv", text)))
    assert [row["question"] for _, row in rows] == ['who, "me"\n, you?', "The Raven?", "q?"]
    assert [where.rpartition(" ")[2] for where, _ in rows] == ["3", "4", "6"]


def test_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"id": "q1", "question": "q?", "answers": ["Suva"], "ctxs": [SUVA], "x": float("nan")}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet") == [{name: rows[0][name] for name in rows[0] if name != "x"}]
    written(tmp_path / "b.parquet", "no parquet")
    with pytest.raises(InputError, match=r"b\.parquet: not a whole Parquet file"):
        read_records(tmp_path / "b.parquet")


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table([["q?"], ["a"], ["b"]], names=["question", "answer", "answer"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: column 'answer' stands twice"):
        read_records(tmp_path / "a.parquet")


def test_a_passage_of_a_parquet_file_that_is_null_is_refused_by_its_place(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    passages = [SUVA | {"note": [1]}]
    write_records([{"id": "q1", "question": "q?", "answers": ["a"], "ctxs": passages}], tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    ctxs = pyarrow.array([[table["ctxs"][0][0].as_py(), None]], table.schema.field("ctxs").type)
    parquet.write_table(table.set_column(3, table.schema.field("ctxs"), ctxs), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet, row 1, ctxs\[1\]: expected an object with title and text"):
        read_records(tmp_path / "a.parquet")


def test_a_parquet_file_whose_data_is_damaged_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"{number}?" * 50 for number in range(2000)]
    parquet.write_table(pyarrow.table({"question": texts}), tmp_path / "a.parquet", compression="zstd")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[50 : len(data) // 2] = bytes(len(data) // 2 - 50)
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet: not a whole Parquet file"):
        read_records(tmp_path / "a.parquet", need_answers=False)


@pytest.mark.parametrize("rows", [1, 300])
def test_parquet_gives_back_every_record_as_it_was(tmp_path, rows):
    datasets = pytest.importorskip("datasets")
    passage = SUVA | {"score": 2**60 + 1, "has_answer": True, "id": 3}
    full = {"question": "q?", "answers": SUVA_ANSWERS, "ctxs": [passage, SUVA], "features": [0.1, 2], "target": "Suva"}
    records = [{"id": f"{i}", **full, "note": [i, {"x": None}]} for i in range(rows)]
    records += [{"id": "bare", "question": "¿?", "answers": ["x"]}, {"id": "none", "question": "q", "ctxs": []}]
    write_records(records, tmp_path / "a.parquet")
    found = read_records(tmp_path / "a.parquet", need_answers=False)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(records).replace(str(2**60 + 1), str(float(2**60))))
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["answers"] == SUVA_ANSWERS and loaded[0]["ctxs"][1]["text"] == SUVA["text"]
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_records([full | {"id": "1", "note": object()}], tmp_path / "b.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "cache"]


def test_commands_write_parquet_and_read_it(tmp_path):
    source = written(tmp_path / "q.jsonl", json.dumps({"question": "Where is Suva?", "answers": ["Fiji"]}) + "\n")
    pool = written(tmp_path / "pool.jsonl", json.dumps(SUVA) + "\n")
    assert main(["data", "--source", str(source), "--output", f"{tmp_path}/a.parquet"]) == 0
    search = ["retrieve", "--input", f"{tmp_path}/a.parquet", "--pool", str(pool), "--output", f"{tmp_path}/b.parquet"]
    assert main(search) == 0
    (record,) = read_records(tmp_path / "b.parquet")
    assert record["id"] == "q-0" and record["ctxs"][0]["title"] == "Suva" and record["ctxs"][0]["has_answer"]


def test_a_configuration_and_a_revision_belong_to_the_hub(tmp_path, capsys):
    path = written(tmp_path / "a.jsonl", "{}\n")
    out = ["--output", f"{tmp_path}/b.jsonl"]
    assert main(["data", "--source", str(path), *out, "--config_name", "rc"]) == 2
    assert "only data sets on the Hub have a configuration" in capsys.readouterr().err
    assert main(["data", "--source", "nobody/nothing", *out, "--config_name", "rc", "--revision", "v1"]) == 2
    assert "nobody/nothing: neither a file here nor a data set" in capsys.readouterr().err


def test_answers_can_be_regular_expressions(tmp_path, capsys):
    text = "The Sun has 5,778 K; the fair is in September."
    for pattern in (r"(5,?778|6,?[05]00)\s*K", r"sept?(ember)?\b"):
        assert has_answer(text, [pattern], "regex") and not has_answer(text, [pattern])
    with pytest.raises(InputError, match="not a regular expression"):
        has_answer(text, ["("], "regex")
    with pytest.raises(InputError, match="takes more than 1 s"):
        has_answer("a" * 40, ["(a|aa)+$b"], "regex")
    record = {"id": "q1", "question": "How hot is the Sun?", "answers": [r"5,?778\s*K"]}
    source = written(tmp_path / "q.jsonl", json.dumps(record) + "\n")
    pool = written(tmp_path / "pool.jsonl", json.dumps({"title": "Sun", "text": text}) + "\n")
    search = ["retrieve", "--input", str(source), "--pool", str(pool), "--output"]
    assert (
        main([*search, f"{tmp_path}/words.jsonl"]) == main([*search, f"{tmp_path}/re.jsonl", "--match", "regex"]) == 0
    )
    said = capsys.readouterr().out
    assert "recall@1 0.0%" in said and "recall@1 100.0%" in said
    source.write_text(json.dumps(record | {"answers": ["("]}) + "\n")
    assert main([*search, f"{tmp_path}/bad.jsonl", "--match", "regex"]) == 2
    assert f"{source}, record q1: answer '(': not a regular expression" in capsys.readouterr().err


def test_check_tells_what_is_in_a_file(tmp_path, capsys):
    rows = [
        {
            "question": "Where is Suva?",
            "answers": ["Fiji", "Fiji Islands"],
            "ctxs": [SUVA, {"title": "x", "text": "y z"}],
        },
        {"question": "where is suva?", "answers": [], "note": 1},
        {"question": " ", "answers": ["a"]},
    ]
    path = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "--check", str(path)]) == 0
    said = capsys.readouterr().out
    for line in (
        "2 records, and 1 rows that cannot be used",
        f"the first of those: {path}, line 3: field 'question'",
        "fields: id, question, answers, ctxs (1), note (1)",
        "answers of a question: 1.0 on average, 0 to 2",
        "words of a passage: 4.0 on average, 2 to 6",
        "questions that stand there before: 1",
        "without answers: 1",
        "with the answer: 50.0 % of the passages, one or more of 100.0 % of the questions",
        '{"id": "a-0", "question": "Where is Suva?"',
    ):
        assert line in said
    pool = written(tmp_path / "p.tsv", "id\ttext\ttitle\n1\ta b\tx\n2\ta b\tx\n")
    assert main(["data", "--check", str(pool)]) == 0
    assert "2 passages, and 0 rows" in capsys.readouterr().out
