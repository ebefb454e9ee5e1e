"""What a loss is counted in, by the name of its column: nats per token unless that says another.

Bits per token and perplexities are nats in other words. What is counted per byte or per character
is not: a factor to nats per token would be that of one tokenizer on one text.
"""

import math
import re

from chinchilla_jax.scaling.table.kinds import words

NATS = "nats per token"
_BITS, _PERPLEXITY, _PER_BYTE = "bits per token", "perplexity", "bits per byte"
NATS_A_BIT = math.log(2.0)
_PPL = r"(ppl|pplx|perplexity|perplexities)"


def _logs(base: str, of: str = _PPL) -> str:
    """Logarithms of perplexities, whatever stands between: `log_c4_ppl`, `ppl_log2`."""
    return rf"{base} (\w+ )*?{of}|{of}( \w+)*? {base}"


def _per(unit: str, word: str) -> tuple[tuple[str, str], ...]:
    """Perplexities per what is no token, `byte_perplexity` of lm-eval, and their logarithms."""
    of = rf"({word} {_PPL}|{_PPL}( per)? {word})"
    bits = (f"bits per {unit}", _logs("log ?2", of))
    return bits, (f"nats per {unit}", _logs("(ln|log)", of)), (f"perplexity per {unit}", of)


_METRICS = (
    (_PER_BYTE, r"bpb|bits( per)? byte"),
    ("bits per character", r"bpc|bits( per)? (char|character)"),
    ("nats per byte", r"nats( per)? byte"),
    ("nats per character", r"nats( per)? (char|character)"),
    *_per("byte", "bytes?"), *_per("word", "words?"), *_per("character", "(char|character)s?"),
    (_BITS, _logs("log ?2")),
    ("decimal digits per token", _logs("log ?10")),
    (NATS, _logs("(ln|log)")),
    (_PERPLEXITY, _PPL),
    (_BITS, r"(in )?bits( per)? (tok|token)|bpt"),
    (NATS, r"(in )?nats(( per)? (tok|token))?|per (tok|token)"),
    # Bits alone are those of weights, too.
    (_BITS, r"(?<=loss )(in )?bits|(?<=nll )(in )?bits|(?<=ce )(in )?bits"),
)  # fmt: skip
_PATTERNS = tuple((metric, re.compile(rf"\b({pattern})\b")) for metric, pattern in _METRICS)
_A_LOSS = re.compile(r"\b(loss(es)?|nll|cross entropy|ce)\b")
_LOGARITHM = re.compile(rf"\b(log ?2|log|ln|{_PPL})\b")
_LOG = re.compile(r"^ln\((.+)\)$")


def metric_of(name: str) -> str:
    """In what the losses of a column are counted.

    >>> metric_of("val_bpb"), metric_of("eval/loss"), metric_of("ln(val_ppl)")
    ('bits per byte', 'nats per token', 'nats per token')
    """
    return _found(name)[0]


def metric_in(name: str, factor: float) -> str | None:
    """In what a column is counted that is read with a factor; None where a person chose that."""
    if factor == 1.0:
        return metric_of(name)
    return NATS if factor == NATS_A_BIT and metric_of(name) == _BITS else None


def is_logarithm(name: str) -> bool:
    """Whether a column has logarithms of perplexities by its name: `log_c4_ppl`."""
    unit = _found(name)[1]
    return bool(re.search(_PPL, unit) and re.search(r"\b(log|ln)", unit))


def in_nats(name: str) -> tuple[str, str, float]:
    """A column's name as that of a loss, how it is read to be one in nats per token, and a factor.

    What is counted per byte or per character stays as it is, its perplexity becomes nats of that.

    >>> in_nats("val_ppl")
    ('val loss', 'ln(val_ppl)', 1.0)
    >>> in_nats("loss_bits")[0], in_nats("val_bits_per_byte")
    ('loss', ('val bpb', 'val_bits_per_byte', 1.0))
    """
    metric, unit = _found(name)
    spoken = words(name)
    if not unit:
        return spoken, name, 1.0
    perplexity = metric.startswith(_PERPLEXITY)
    if not perplexity and metric not in (NATS, _BITS):
        return spoken.replace(unit, "bpb") if metric == _PER_BYTE else spoken, name, 1.0
    logs = _LOGARITHM.search(unit)
    spoken = _LOGARITHM.sub(" ", spoken) if logs else spoken.replace(unit, " ", 1)
    spoken = " ".join(spoken.split())
    plain = spoken if _A_LOSS.search(spoken) else f"{spoken} loss".strip()
    if perplexity:
        return plain, f"ln({name})", 1.0
    return plain, name, NATS_A_BIT if metric == _BITS else 1.0


def of_log(text: str) -> str | None:
    """`val_ppl` of `ln(val_ppl)`; None of any other text."""
    found = _LOG.match(text)
    return found[1].strip() if found else None


def _found(name: str) -> tuple[str, str]:
    """The metric and the words that say so; "" where none do."""
    spoken = words(name)
    for metric, pattern in _PATTERNS:
        if found := pattern.search(spoken):
            return metric, found[0]
    return NATS, ""
