"""The publish gate: three files in, one ``TemplateVersion`` out, or everything that is wrong with them.

What passes is well-formed, self-consistent and harmless to read; what its code does is the sandbox's matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lab_templates import notebook as notebooks
from lab_templates import parameters_cell
from lab_templates.declaration import Declaration, read_declaration, text
from lab_templates.model import InvalidInput, ParameterSpec, Problem, TemplateVersion

MAX_README_BYTES = 256 * 1024

_RECORDS = re.compile(r"\brecord\b|application/vnd\.proverom\.result\+json")
_NETWORK = re.compile(r"https?://|\bpip\s+install\b|\brequests\.(?:get|post)\b|\burlopen\b")


def read_template(
    notebook: bytes, declaration: bytes, readme: bytes | str, *, known_kernels: Sequence[str] = ("python3",)
) -> TemplateVersion:
    """Return the template these three files are. Raise InvalidInput with every problem that can be seen at once.

    Codes are those of ``notebook``, ``declaration`` and ``parameters_cell``; for the readme file_too_large, bad_text.
    """
    problems: list[Problem] = []
    content, declared, explained = None, None, ""
    try:
        explained = _readme(readme)
    except InvalidInput as error:
        problems.extend(error.problems)
    try:
        declared = read_declaration(declaration)
    except InvalidInput as error:
        problems.extend(error.problems)
    try:
        content = notebooks.read_notebook(notebook)
        problems.extend(notebooks.check_cells(content, known_kernels))
    except InvalidInput as error:
        problems.extend(error.problems)
    if content is not None and declared is not None:
        problems.extend(_cell_problems(content, declared.specs()))
    if problems or content is None or declared is None:
        raise InvalidInput(tuple(problems))
    return _version(declared, notebooks.kernel(content), notebook, declaration, explained)


def digest(notebook: bytes, declaration: bytes, readme: bytes | str) -> str:
    """Return "sha256:<hex>" over the three files, each preceded by its length in 8 bytes (big-endian).

    The lengths keep a byte from moving between files unseen.
    """
    total = hashlib.sha256()
    for part in (notebook, declaration, readme.encode("utf-8") if isinstance(readme, str) else readme):
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return f"sha256:{total.hexdigest()}"


def reread(notebook: bytes, declaration: bytes, readme: str, expected: str) -> TemplateVersion:
    """Return a version that passed the gate when it was stored: its rules may have grown since, its bytes may not.

    Raise InvalidInput (digest_differs) if one byte is another.
    """
    if (found := digest(notebook, declaration, readme)) != expected:
        what = f"The stored template has digest {found}, not {expected}: it was changed. Publish it anew."
        raise InvalidInput((Problem("digest_differs", "digest", found, expected, what),))
    kernel = notebooks.kernel(json.loads(notebook))
    return _version(read_declaration(declaration), kernel, notebook, declaration, readme)


def advice(version: TemplateVersion) -> tuple[Problem, ...]:
    """Return what an author should look at in a template that passes the gate; nothing here stops publishing.

    Codes: nothing_recorded, metric_not_recorded, needs_network, no_readme.
    """
    return tuple(_advice(version))


def _readme(readme: bytes | str) -> str:
    raw = readme.encode("utf-8", "surrogatepass") if isinstance(readme, str) else readme
    if len(raw) > MAX_README_BYTES:
        what = f"README.md is {len(raw)} bytes; at most {MAX_README_BYTES} are allowed. Shorten it."
        raise InvalidInput((Problem("file_too_large", "README.md", str(len(raw)), str(MAX_README_BYTES), what),))
    try:
        explained = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"README.md is not UTF-8 (byte {error.start}). Save it as UTF-8."
        raise InvalidInput((Problem("bad_text", "README.md", message=what),)) from error
    if "\x00" in explained:
        raise InvalidInput((Problem("bad_text", "README.md", message="README.md holds a NUL character. Take it out."),))
    return explained


def _cell_problems(content: Any, specs: Sequence[ParameterSpec]) -> Iterator[Problem]:
    source = notebooks.parameters_source(content)
    if source is not None and notebooks.language(content).lower() in ("python", "ipython"):
        yield from parameters_cell.compare(source, specs)


def _version(declared: Declaration, kernel: str, notebook: bytes, declaration: bytes, readme: str) -> TemplateVersion:
    return TemplateVersion(
        name=declared.name,
        version=declared.version,
        digest=digest(notebook, declaration, readme),
        title=text(declared.title),
        summary=text(declared.summary),
        language=declared.language,
        kernel=kernel,
        timeout_seconds=declared.timeout_seconds,
        data_class=declared.data_class,
        data_source=text(declared.data_source),
        parameters=declared.specs(),
        metrics=declared.metric_specs(),
        notebook=notebook,
        declaration=declaration,
        readme=readme,
        start=declared.runtime.start,
    )


def _advice(version: TemplateVersion) -> Iterator[Problem]:
    cells = notebooks.read_notebook(version.notebook)["cells"]
    code = "\n".join(notebooks.source(cell) for cell in cells if cell["cell_type"] == "code")
    if not _RECORDS.search(code):
        what = "The notebook records nothing, so its report will have no finding. Use experiments.record."
        yield Problem("nothing_recorded", "notebook", message=what)
    for metric in version.metrics:
        if metric.name not in code:
            what = f"The declared metric {metric.name} does not occur in the code. Record it, or take it out."
            yield Problem("metric_not_recorded", metric.name, message=what)
    if (found := _NETWORK.search(code)) is not None:
        what = f"The code holds {found.group()}; a run has no network. Use data that a package carries."
        yield Problem("needs_network", "notebook", found.group(), message=what)
    if not version.readme.strip():
        what = "README.md is empty. Say what the template answers, with which data, and what it cannot say."
        yield Problem("no_readme", "README.md", message=what)
