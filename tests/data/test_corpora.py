import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from chinchilla_jax.data import corpora
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError

CONFIG = DataConfig(builder="local_text", path="x")


@pytest.fixture
def prepared(folder, tmp_path):
    return corpora.prepare(CONFIG, sorted(folder.iterdir()), tmp_path / "prepared")


def test_any_tfds_program_reads_what_is_prepared(prepared, texts):
    source = tfds.builder_from_directory(prepared).as_data_source("train")
    assert [row["text"].decode() for row in source] == texts
    assert source[7]["source"].decode().endswith("007.txt")


def test_nothing_is_said_of_downloads(folder, tmp_path, capfd):
    corpora.prepare(CONFIG, sorted(folder.iterdir()), tmp_path / "prepared")
    assert capfd.readouterr() == ("", "")


def test_it_streams_to_shards_and_reads_them_back_in_order(folder, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(corpora, "_SHARD_DOCUMENTS", 7)
    monkeypatch.setattr(corpora, "_BATCH_BYTES", 2000)
    place = corpora.prepare(CONFIG, sorted(folder.iterdir()), tmp_path / "prepared")
    builder = corpora.open_prepared(place, "text")
    assert len(builder.info.splits["train"].shard_lengths) == 9
    assert [t.decode() for t in corpora.documents(builder, "text")] == texts


def test_short_documents_are_compressed_together_and_long_ones_alone(tmp_path, monkeypatch):
    """No group holds many long documents; what is long begins a shard."""
    monkeypatch.setattr(corpora, "_LONG", 100)
    options = []

    class Writer(corpora.array_record_module.ArrayRecordWriter):
        def __init__(self, path, option):
            options.append(option)
            super().__init__(path, option)

    monkeypatch.setattr(corpora.array_record_module, "ArrayRecordWriter", Writer)
    texts = [*[f"short {i}" for i in range(5)], "long " * 30, *[f"short {i}" for i in range(4)]]
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    place = corpora.prepare(CONFIG, [tmp_path / "texts.jsonl"], tmp_path / "prepared")
    builder = corpora.open_prepared(place, "text")
    assert builder.info.splits["train"].shard_lengths == [5, 5]
    assert options == ["group_size:64", "group_size:1"]
    assert [t.decode() for t in corpora.documents(builder, "text")] == texts


def test_documents_reach_the_disk_before_the_last_is_read(folder, tmp_path, monkeypatch):
    """Memory does not grow with the corpus: TFDS's own writer would hold everything."""
    monkeypatch.setattr(corpora, "_SHARD_DOCUMENTS", 5)
    monkeypatch.setattr(corpora, "_BATCH_BYTES", 1)
    written = []

    def documents(files, text_field, skipped):
        for number in itertools.count():
            if number == 50:
                return
            written.append(len(list((tmp_path / "prepared").rglob("*array_record*"))))
            yield "name", b"text %d" % number

    monkeypatch.setattr(corpora.sources, "documents", documents)
    corpora.prepare(CONFIG, [], tmp_path / "prepared")
    assert written == sorted(written)
    assert written[-1] >= 9


def test_a_failed_preparation_leaves_nothing(folder, tmp_path):
    (folder / "050x.txt").write_bytes(b"\xff")
    for _ in range(2):
        with pytest.raises(UserError, match=r"050x\.txt is not UTF-8"):
            corpora.prepare(CONFIG, sorted(folder.iterdir()), tmp_path / "prepared")
        assert not [path for path in (tmp_path / "prepared").rglob("*") if path.is_file()]


def test_blank_files_alone_are_no_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(UserError, match=r"no document at all \(1 blank documents\)"):
        corpora.prepare(CONFIG, [tmp_path / "a.txt"], tmp_path / "prepared")


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwrite(content: bytes) -> bytes:
    return content[:5000] + bytes(40) + content[5040:]


@pytest.mark.parametrize("damage", [truncate, overwrite, None])
def test_a_damaged_shard_is_named(prepared, damage):
    (shard,) = prepared.glob("*array_record*")
    content = shard.read_bytes()
    shard.unlink()
    if damage:
        shard.write_bytes(damage(content))
    builder = corpora.open_prepared(prepared, "text")
    with pytest.raises(UserError, match=f"{shard.name} is damaged at record") as error:
        list(corpora.documents(builder, "text"))
    assert "\n" not in str(error.value)


def test_records_that_do_not_come_are_missed(prepared, monkeypatch):
    """A reader that gives fewer than it was asked for."""

    class Short(corpora.array_record_module.ArrayRecordReader):
        def read(self, start, end):
            return super().read(start, end)[: 1 if end - start == 1 else -1]

    builder = corpora.open_prepared(prepared, "text")
    whole = list(corpora.documents(builder, "text"))
    monkeypatch.setattr(corpora.array_record_module, "ArrayRecordReader", Short)
    assert list(corpora.documents(builder, "text")) == whole


class Foreign(tfds.core.GeneratorBasedBuilder):
    """A data set that somebody else prepared."""

    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        features = {"body": tfds.features.Text(), "label": np.int64}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(30), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"body": f"document {number}", "label": number}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    builder = Foreign(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_any_array_record_data_set_gives_its_training_split(foreign):
    builder = corpora.open_prepared(foreign, "body")
    documents = {text.decode() for text in corpora.documents(builder, "body")}
    assert documents == {f"document {number}" for number in range(30)}


def test_a_wrong_folder_or_field_is_one_line(foreign, tmp_path):
    for folder, field, message in (
        (foreign, "text", r"no such field \(the fields are body, label\)"),
        (foreign, "label", "holds .*int64.*, not text"),
        (foreign.parent, "body", f"holds no prepared TFDS data set.*did you mean {foreign}"),
        (foreign.parent.parent, "body", f"did you mean {foreign}"),
        (tmp_path, "body", "holds no prepared TFDS data set"),
    ):
        with pytest.raises(UserError, match=message) as error:
            corpora.open_prepared(folder, field)
        assert "\n" not in str(error.value)


def test_a_data_set_that_needs_tensorflow_is_refused(foreign, tmp_path):
    info = (foreign / "dataset_info.json").read_text()
    (tmp_path / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    (tmp_path / "features.json").write_text((foreign / "features.json").read_text())
    with pytest.raises(UserError, match="is prepared as tfrecord; prepare it with"):
        corpora.open_prepared(tmp_path, "body")
