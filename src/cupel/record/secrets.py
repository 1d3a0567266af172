"""What must not get into a record by accident: keys and passwords in commands, variables, patches.

Two kinds of signs. Certain ones: the known forms of keys (`hf_…`, `ghp_…`, `sk-…`, `AKIA…`, a JSON
web token, a private key), passwords in URLs, and values named like `--api-key=…`. Likely ones: long
texts that look random, which commands and variables never need. A checksum may be masked for one
(unless its name says what it is), and a short password without a telling name is not found: this
catches accidents and is no guard. Of what is printed only certain signs are masked. What a script
records by name is kept as given: its configuration, which is hashed, notes, texts and alerts.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence

MASK = "***"

# What a result or its speed may depend on. Everything else stays where it is: an environment holds
# keys, names and addresses that are nobody's business.
_ALLOWED = frozenset(
    ("CONDA_DEFAULT_ENV", "GPU_DEVICE_ORDINAL", "GROUP_RANK", "HF_DATASETS_OFFLINE",
     "HF_HUB_OFFLINE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
     "PYTHONHASHSEED", "PYTHONOPTIMIZE", "RANK", "ROLE_RANK", "TOKENIZERS_PARALLELISM",
     "VECLIB_MAXIMUM_THREADS", "WORLD_SIZE", "XLA_FLAGS")
)  # fmt: skip
_ALLOWED_BEGINNINGS = (
    "CUBLAS_", "CUDA_", "CUDNN_", "CUPEL_", "FLASH_ATTENTION_", "GLOO_", "HIP_", "KMP_", "MKL_",
    "NCCL_", "NUMEXPR_", "NVIDIA_", "OMP_", "OPENBLAS_", "PBS_", "PYTORCH_", "ROCR_", "SLURM_",
    "SLURMD_", "TORCH_", "TORCHELASTIC_", "TORCHINDUCTOR_", "TRITON_",
)  # fmt: skip
_WHO = re.compile(r"(^|_)(USER|UID|GID|GROUP_ID|LOGNAME|O_(HOME|LOGNAME|MAIL|PATH))(_|$)")

# name: how many characters a value needs to be one; `--max-tokens=512` names no secret
_NAMES = {"password": 1, "passwd": 1, "passphrase": 1, "secret": 1, "credential": 1, "pwd": 1,
          "credentials": 1, "apikey": 1, "jwt": 8, "token": 8, "auth": 8, "bearer": 8}  # fmt: skip
_KEY_OF = frozenset(("api", "access", "secret", "private", "account", "license", "auth", "signing"))
_CHECKSUMS = frozenset(
    ("sha", "sha1", "sha256", "md5", "commit", "hash", "digest", "checksum", "rev", "revision",
     "identity", "uuid")
)  # fmt: skip

_KNOWN = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
        sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}     # OpenAI, Anthropic and others
      | hf_[A-Za-z0-9]{30,}                           # Hugging Face
      | gh[pousr]_[A-Za-z0-9]{30,}                    # GitHub
      | github_pat_[A-Za-z0-9_]{30,}
      | glpat-[A-Za-z0-9_-]{20,}                      # GitLab
      | xox[abeoprs]-[A-Za-z0-9-]{10,}                # Slack
      | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])      # Amazon
      | AIza[A-Za-z0-9_-]{35}                         # Google
      | ya29\.[A-Za-z0-9_-]{20,}
      | (?:npm|r8)_[A-Za-z0-9]{36,}
      | (?:nvapi-|wandb_v1_|dop_v1_|dckr_pat_|pypi-)[A-Za-z0-9_-]{27,}
      | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*   # a JSON web token
    )
    | (?<=PRIVATE\ KEY-----)[A-Za-z0-9+/=\\\s]{40,}
    """,
    re.VERBOSE,
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\W*(\\n)?\W*$")
_KEY_GOES_ON = re.compile(r"""[\s"'+(]*[A-Za-z0-9+/=]{8,}(\\n)?[\s"'+,)\\]*""")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):([^\s/@]+)@")
_URL_PARAMETER = re.compile(
    r"([?&;](?:x-amz-)?(?:api_?key|key|token|access_token|auth|secret|password|sig|signature)=)"
    r"[^&;\s]{4,}",
    re.IGNORECASE,
)
_FRAGMENT = re.compile(r"(/#t=)[A-Za-z0-9._~-]{16,}")  # the address of a dashboard
_BEARER = re.compile(
    r"(authorization\W{1,5}(?:bearer|basic)\s+|\bbearer\s+(?=\S*[0-9]))[A-Za-z0-9+/=_.-]{8,}",
    re.IGNORECASE,
)
_SIGNS = (  # without any of these, in small letters, no certain form is there: looked for first
    "sk-", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "akia",
    "asia", "aiza", "ya29.", "npm_", "r8_", "nvapi-", "wandb_v1_", "dop_v1_", "dckr_pat_", "pypi-",
    "eyj", "private key", "://", "?", "&", ";", "bearer", "authorization",
)  # fmt: skip
_HEX = re.compile(r"(?<![A-Za-z0-9])(?<!sha256:)(?<!sha1:)(?<!md5:)[0-9a-fA-F]{32,}(?![A-Za-z0-9])")
_LONG = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9][A-Za-z0-9+/=_-]{31,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")  # of a GPU, a job
_ASSIGNED = re.compile(  # in code: api_key = "…", "password": "…"
    r"""(?P<before>(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)["']?\s*[:=]\s*(?P<quote>["']))
        (?P<value>[^"'\s]{6,})(?P=quote)""",
    re.VERBOSE,
)
_PLAIN_WORD = re.compile(r"[a-z_./-]+|[A-Z_./-]+")  # the name of a field or of a variable


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those environment variables that may be recorded, by name, masked; see `_ALLOWED`."""
    environ = os.environ if environ is None else environ
    return {
        name: MASK if _asks_for(name, value) else masked(value)
        for name, value in sorted(environ.items())
        if (name in _ALLOWED or name.startswith(_ALLOWED_BEGINNINGS)) and not _WHO.search(name)
    }


def arguments(argv: Sequence[str]) -> list[str]:
    """A command's words with what looks like a key masked, also in `--password x`, in two words."""
    shown: list[str] = []
    named = ""
    for word in argv:
        name, equals, value = word.partition("=") if " " not in word else (word, "", "")
        if named and not word.startswith("-") and _asks_for(named, word):
            shown.append(MASK)
        elif equals and _asks_for(name, value):
            shown.append(f"{name}={MASK}")
        elif equals and _words(name) & _CHECKSUMS:
            shown.append(f"{name}={certain(value)}")
        else:
            shown.append(masked(word))
        named = word if word.startswith("-") and not equals else ""
    return shown


def masked(text: str) -> str:
    """The text with everything in it masked that is, or looks like, a key or a password."""
    text = certain(text)
    text = _HEX.sub(MASK, text)
    return _LONG.sub(lambda match: MASK if _looks_random(match[0]) else match[0], text)


def masked_patch(patch: bytes) -> tuple[bytes, int]:
    """A patch without keys of known forms, and how many lines of it were changed for that.

    In added lines also literals that are named like secrets. What only looks random stays: in code
    it is mostly a checksum, and masking it would change what the code does. A patch still applies
    when only added lines were masked; if another line was, it does not, and no key is worth that.
    """
    lines, count = patch.split(b"\n"), 0
    in_code = in_key = False
    for number, line in enumerate(lines):
        text = line.decode("utf-8", "surrogateescape")
        if line.startswith((b"diff ", b"@@")):
            in_code, in_key = line.startswith(b"@@"), False
            continue
        if not in_code:
            continue
        sign, rest = text[:1], text[1:]
        found = _KNOWN.sub(MASK, rest)
        if sign == "+":
            found = _ASSIGNED.sub(_without_literal, certain(rest))
        if in_key and _KEY_GOES_ON.fullmatch(rest):
            found = MASK
        else:
            in_key = bool(_KEY_BEGINS.search(rest))
        if found != rest:
            lines[number] = (sign + found).encode("utf-8", "surrogateescape")
            count += 1
    return b"\n".join(lines), count


def certain(text: str) -> str:
    """The text with known forms of keys and passwords masked, and nothing that only looks so."""
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _URL_PARAMETER.sub(rf"\1{MASK}", text)
    text = _FRAGMENT.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _KNOWN.sub(MASK, text)


def _without_literal(match: re.Match[str]) -> str:
    if _PLAIN_WORD.fullmatch(match["value"]) or not _asks_for(match["name"], match["value"]):
        return match[0]
    return f"{match['before']}{MASK}{match['quote']}"


def _asks_for(name: str, value: str) -> bool:
    """Whether a thing of this name is a secret, when it has this value."""
    words = _words(name)
    least = min((_NAMES[word] for word in words if word in _NAMES), default=0)
    if "key" in words and words & _KEY_OF:
        least = 1
    if least == 0 or len(value) < least or value.casefold() in ("none", "null", "true", "false"):
        return False
    return least == 1 or not (value.isdecimal() or value[:1] in "<[{")


def _words(name: str) -> set[str]:
    parts: Iterable[str] = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)
    return {part.lower() for part in parts if part}


def _looks_random(text: str) -> bool:
    """Names are runs of small letters and of digits; a key changes its kind at every other place.

    Of random base64 nearly two neighbours in three differ in kind; of names one in four at most.
    """
    plain = re.sub(r"[^A-Za-z0-9]", "", _UUID.sub("", text))
    kinds = ["d" if c.isdecimal() else "l" if c.islower() else "u" for c in plain]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    needed = 0.4 if len(set(kinds)) == 3 else 0.33
    return len(plain) >= 24 and len(set(kinds)) > 1 and changes / len(plain) > needed
