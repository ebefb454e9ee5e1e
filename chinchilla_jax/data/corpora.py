"""Corpora as TensorFlow Datasets without TensorFlow: `local_text`, embedded ones, or any other.

Importing this takes half a second; `store.open_corpus` does so only to build. A prepared corpus
is an ordinary TFDS folder in array_record files, so that other tools can read it:

    source = tfds.builder_from_directory(folder).as_data_source("train")
"""

import contextlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from chinchilla_jax.data import python_source, sources
from chinchilla_jax.data.progress import Advance, progress
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError

TRAIN = "train"  # the one split written here; `store` holds out validation by document hash
_SHARD_DOCUMENTS = 1 << 16
# Records that are compressed together: alone, short ones cost several times their text. A shard
# with a long document has each by itself, so that no group holds more than some megabytes.
_GROUP, _LONG = 64, sources.MAX_TEXT
_BATCH_BYTES = 4 << 20  # of records read at once, about
_FIRST_READ, _MOST_READ = 16, 4096  # records
_READ_OPTIONS = "readahead_buffer_size:0"  # of records that are asked for by number

NamedDocuments = Callable[[Counter[str]], Iterator[tuple[str, bytes]]]


class TextBuilder(tfds.core.GeneratorBasedBuilder):
    """Documents of text, streamed to array_record files in the order they come.

    `skipped`, by reason, is kept in the metadata of the data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""

    def __init__(self, *, documents: NamedDocuments, advance: Advance, **kwargs: Any) -> None:
        self._documents = documents
        self._advance = advance
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "source": tfds.features.Text()}
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, Any]]]:
        return {TRAIN: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        skipped: Counter[str] = Counter()
        for number, (source, text) in enumerate(self._documents(skipped)):
            yield number, {"text": text, "source": source}
            self._advance(len(text))
        self.info.metadata["skipped"] = dict(sorted(skipped.items()))

    def _generate_splits(self, dl_manager: object, download_config: object) -> list[Any]:
        """Streams the split to disk.

        TFDS's own writers hold a gigabyte of documents to shuffle them, beyond that ask for
        TensorFlow, and take most of a build of short documents; the order of documents is the
        sampler's business here.
        """
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name,
            data_dir=self._info().data_dir,  # temporary: TFDS renames it when all is written
            split=TRAIN,
            filetype_suffix="array_record",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
        )
        lengths: list[int] = []
        size, writer, grouped = 0, None, True
        for _, example in self._generate_examples():
            long = len(example["text"]) > _LONG
            if writer is None or lengths[-1] == _SHARD_DOCUMENTS or (long and grouped):
                if writer is not None:
                    writer.close()
                grouped = not long
                path = template.sharded_filepath(shard_index=len(lengths), num_shards=None)
                group = f"group_size:{_GROUP if grouped else 1}"
                writer = array_record_module.ArrayRecordWriter(str(path), group)
                lengths.append(0)
            record = _record(example)
            writer.write(record)
            lengths[-1] += 1
            size += len(record)
        if writer is not None:
            writer.close()
        return [
            tfds.core.SplitInfo(
                name=TRAIN, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        ]


class LocalText(TextBuilder):
    """Text files, JSON lines and Parquet of this machine."""

    name = "local_text"
    DESCRIPTION = "Documents from local files of text, JSON lines or Parquet."


class PythonSource(TextBuilder):
    """The source text of the running Python and of the packages it needs here."""

    name = "python_source"
    DESCRIPTION = "Source text of the Python standard library and of installed packages."


class CSource(TextBuilder):
    """C and C++ that come with the running Python and with the packages it needs here."""

    name = "c_source"
    DESCRIPTION = "Text in C and C++, headers for the most part, of installed packages."


def prepare(config: DataConfig, files: list[Path], folder: Path) -> Path:
    """Writes the corpus of `config` as a TFDS data set in `folder`, if it is not there yet.

    Args:
      files: of `sources.expand`; not used by embedded text.

    Returns:
      The folder of the data set. An interrupted call leaves nothing there.

    Raises:
      UserError: damaged files, or no document at all.
    """
    builders: dict[str, tuple[type[TextBuilder], NamedDocuments]] = {
        "python_source": (
            PythonSource,
            lambda skipped: python_source.documents(config.packages, skipped),
        ),
        "c_source": (
            CSource,
            lambda skipped: python_source.documents(config.packages, skipped, python_source.C),
        ),
        "local_text": (
            LocalText,
            lambda skipped: sources.documents(files, config.text_field, skipped),
        ),
    }
    kind, documents = builders[config.builder]
    size = sum(file.stat().st_size for file in files)
    compressed = any(file.suffix in sources.COMPRESSIONS for file in files)
    for stale in folder.glob("*/incomplete.*"):  # of a build that was killed
        shutil.rmtree(stale)
    tfds.disable_progress_bar()
    with (
        progress(f"reading {config.builder}", 0 if compressed else size) as advance,
        tempfile.TemporaryDirectory() as nowhere,  # TFDS wants a place for downloads
        _quiet(),
    ):
        builder = kind(documents=_some(documents), advance=advance, data_dir=folder)
        builder.download_and_prepare(
            download_dir=nowhere,
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    return Path(builder.data_dir)


def open_prepared(folder: Path, text_field: str) -> Any:
    """The TFDS builder of a data set prepared as array_record in `folder` (with a text field).

    Raises:
      UserError: no data set there, one in another file format, or without the field.
    """
    try:
        with _quiet():
            builder = tfds.builder_from_directory(folder)
    except Exception as error:  # of many kinds, none documented
        raise UserError(
            f"data.path: {folder} holds no prepared TFDS data set (a folder such as "
            f"name/1.0.0 with dataset_info.json){_below(folder)}: "
            f"{' '.join(str(error).split()):.200}"
        ) from None
    info = builder.info
    file_format = info.file_format.value if info.file_format else "unknown"
    if file_format != "array_record":
        raise UserError(
            f"data.path: {folder} is prepared as {file_format}; prepare it with "
            "file_format='array_record', which is read without TensorFlow"
        )
    if text_field not in (info.features or {}):
        raise UserError(
            f"data.text_field = {text_field!r}: {folder} has no such field "
            f"(the fields are {', '.join(sorted(info.features or {}))})"
        )
    feature = info.features[text_field]
    if feature.shape != () or feature.np_dtype != np.dtype(object):
        raise UserError(f"data.text_field = {text_field!r}: of {folder} holds {feature}, not text")
    if not info.splits:
        raise UserError(f"data.path: {folder} has no splits")
    return builder


def documents(builder: Any, text_field: str) -> Iterator[bytes]:
    """Yields the text of every document of the data set's training split, in its order.

    A data set without a split named train is read in all its splits.

    Raises:
      UserError: a damaged or missing shard, named; text that is not UTF-8.
    """
    splits = builder.info.splits
    for name in [TRAIN] if TRAIN in splits else sorted(splits):
        for path, length in zip(splits[name].filepaths, splits[name].shard_lengths, strict=True):
            for number, record in enumerate(_records(Path(path), length)):
                try:
                    text = _text_of(record, text_field)
                    text.decode()
                except UnicodeDecodeError:
                    where = f"record {number}"
                    raise UserError(f"data.path: {path} is not UTF-8 in {where}") from None
                except (DecodeError, ValueError, IndexError) as error:
                    raise _damaged(Path(path), number, error) from None
                yield text


def _records(path: Path, length: int) -> Iterator[bytes]:
    """The records of a shard: as many are read at once as hold some _BATCH_BYTES.

    Raises:
      UserError: one cannot be read; its number is told.
    """
    start, count, reader = 0, _FIRST_READ, None
    try:
        while start < length:
            end = min(start + count, length)
            try:
                reader = reader or array_record_module.ArrayRecordReader(str(path), _READ_OPTIONS)
                records = reader.read(start, end)
                if len(records) != end - start or not all(records):
                    raise ValueError("the record is empty")  # of a file cut at a block boundary
            except (ValueError, OSError, RuntimeError, IndexError) as error:
                if end - start == 1:
                    raise _damaged(path, start, error) from None
                count = 1  # again, up to the one
                continue
            yield from records
            start = end
            size = sum(map(len, records))
            count = max(1, count // 2) if size > _BATCH_BYTES else min(2 * count, _MOST_READ)
    finally:
        if reader is not None:
            with contextlib.suppress(RuntimeError):  # of what it could not read
                reader.close()


def _damaged(path: Path, number: int, error: Exception) -> UserError:
    return UserError(
        f"data.path: {path} is damaged at record {number} ({' '.join(str(error).split()):.160}); "
        f"delete {path.parent} and prepare the data set again"
    )


def _record(example: Mapping[str, Any]) -> bytes:
    """An example of texts as TFDS stores it."""
    proto = tf_example_pb2.Example()
    for name, value in example.items():
        text = value.encode() if isinstance(value, str) else value
        proto.features.feature[name].bytes_list.value.append(text)
    return proto.SerializeToString()


def _text_of(record: bytes, name: str) -> bytes:
    """One text of an example, without the work of decoding the others."""
    return tf_example_pb2.Example.FromString(record).features.feature[name].bytes_list.value[0]


def _below(folder: Path) -> str:
    """`; did you mean ...?` where `folder` is a data_dir, or a name or config in one."""
    found = [
        info.parent
        for depth in (1, 2, 3)  # name/config/version
        for info in sorted(folder.glob("*/" * depth + "dataset_info.json"))
    ]
    return f"; did you mean {' or '.join(map(str, found[:3]))}?" if found else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS speaks of downloads on standard output and of folders in the log; neither is news."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _some(documents: NamedDocuments) -> NamedDocuments:
    """`documents`, refusing to yield none."""

    def checked(skipped: Counter[str]) -> Iterator[tuple[str, bytes]]:
        empty = True
        for document in documents(skipped):
            empty = False
            yield document
        if empty:
            reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
            raise UserError(f"data.path: no document at all ({reasons or 'the files are empty'})")

    return checked
