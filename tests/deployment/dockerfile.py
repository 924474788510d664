"""A Dockerfile as its instructions."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction: `word` in capitals, and all that follows it."""

    word: str
    text: str


class Dockerfile:
    """The instructions of a file, stage by stage."""

    def __init__(self, path: Path) -> None:
        text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        lines = text.replace("\\\n", " ").splitlines()
        self.stages: list[list[Instruction]] = []
        for line in filter(str.strip, lines):
            word, _, rest = line.partition(" ")
            if word == "FROM":
                self.stages.append([])
            self.stages[-1].append(Instruction(word, rest.strip()))

    @property
    def instructions(self) -> list[Instruction]:
        return [instruction for stage in self.stages for instruction in stage]

    def last(self, word: str) -> str:
        """Returns what the finished image has for an instruction."""
        return [i.text for i in self.stages[-1] if i.word == word][-1]

    def environment(self) -> dict[str, str]:
        """Returns the environment variables of the finished image."""
        pairs = [p for i in self.stages[-1] if i.word == "ENV" for p in shlex.split(i.text)]
        return dict(pair.split("=", 1) for pair in pairs)

    def copied(self) -> list[str]:
        """Returns the sources that are copied from the build context."""
        sources = []
        for instruction in self.instructions:
            if instruction.word == "COPY" and "--from=" not in instruction.text:
                words = [w for w in instruction.text.split() if not w.startswith("--")]
                sources += words[:-1]
        return sources
