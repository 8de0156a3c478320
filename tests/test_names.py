"""What is typed for `make submission`: names, roll numbers and dates."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_sentence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import submission  # noqa: E402

NAME, ROLL = "Zoë O’Neil-Müller Jr.", "M23_CS-001"
WRONG = [
    *("", " ", "../../etc/passwd", "a/b", "a\\b", "/", ".", "..", "a..b", ".hidden", "-rf", "’"),
    *("a;b", "a|b", "a&b", "$(id)", "`id`", "a>b", "a*", "a?", '"', "~", "a:b", "#", "{a}", "a=b"),
    *("a\nb", "a\tb", "a\0b", "a\x1b[1mb", "a\u202eb", "a\u00a0b", "a\ufeffb", "a--b", "a  b"),
    *("a" * 61, "a@b", "<b>", "[a](b)", "*a*", "a\u2028b", "\u200da", "🙂", "a-", "a,"),
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_name_is_refused_in_a_sentence(text, capsys):
    for arguments, what in (([text, ROLL], "NAME"), ([NAME, text], "ROLL")):
        assert submission.main(arguments) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith(f"make submission: {what} is ")
        one_sentence(ValueError(said.err.strip()))


@pytest.mark.parametrize(
    "name",
    [
        *("Ada Lovelace", "Zoë O’Neil-Müller", "D'Arcy", "De' Medici", "J. R. R. Tolkien", "X"),
        *("Ngô Bảo Châu", "अनन्या शर्मा", "李小龍", "محمد علي", "Анна Ёлкина", "ශ්\u200dරී ලංකා"),
        *("Sammy Davis, Jr.", "Gal·la Placídia", "'t Hooft", "ʻAkahi", "‘Abd al-Rahman", "Marie 3"),
        *("エイダ・ラブレス", "צ׳רלס", "Con O'Neill", "Nula Aux", "José"),
    ],
)
def test_names_of_people_are_names(name):
    assert submission.checked(name, "NAME", "x", " -.,\u200c\u200d") == name
    assert submission.stem_of(name, ROLL).endswith(f".{ROLL}")


@pytest.mark.parametrize("name", ["CON", "nul", "Aux.txt", "PRN", "com1", "LPT9.x", "Con.", "com¹"])
def test_names_that_windows_reserves_are_refused(name, capsys):
    assert submission.main([name, ROLL]) == 1
    said = capsys.readouterr().err.strip()
    assert "Windows reserves the name" in one_sentence(ValueError(said))


def test_together_they_fit_a_file_name(capsys):
    assert submission.main(["अ" * 60, "क" * 60]) == 1
    assert "too long together" in capsys.readouterr().err
    assert submission.stem_of("Sammy Davis, Jr.", "M1") == "Sammy Davis, Jr.M1"


@pytest.mark.parametrize(
    "date", ["yesterday", "2025-02-30", "1979-12-31", "09.03.2025", "9999-01-01"]
)
def test_what_is_no_date_is_refused_in_a_sentence(date, capsys):
    assert submission.main([NAME, ROLL, date]) == 1
    assert "give it as DATE=2025-03-09" in one_sentence(ValueError(capsys.readouterr().err.strip()))


def test_the_date_is_the_last_commits_and_then_the_books(tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "ROOT", tmp_path)
    (tmp_path / "_quarto.yml").write_text("book:\n  title: x\n  date: 2025-01-02\n")
    assert submission.day_of("") == datetime.date(2025, 1, 2)
    (tmp_path / ".git").mkdir()
    answer = subprocess.CompletedProcess([], 0, "2025-02-03\n")
    monkeypatch.setattr(submission.subprocess, "run", lambda *command, **how: answer)
    assert submission.day_of("") == datetime.date(2025, 2, 3)
    assert submission.day_of("2025-03-09") == datetime.date(2025, 3, 9)


def test_make_passes_what_was_typed_on_as_it_is(tmp_path):
    wrapper = tmp_path / "wrapper.mk"
    show = 'show:\n\t@printf \'[%s][%s][%s]\' "$$NAME" "$$ROLL" "$$DATE"\n'
    wrapper.write_text(f"include {ROOT / 'Makefile'}\n{show}")
    name = "$(shell touch one)`touch two`\"; touch three; ' $$(touch four)"
    roll = "$(error five)$$x"

    def shown(*arguments: str) -> str:
        environment = {**os.environ, "NAME": "host", "DATE": "today"}  # as on some systems
        command = ["make", "-s", "-f", wrapper, "show", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert shown(f"NAME={name}", f"ROLL={roll}") == f"[{name}][{roll}][]"
    assert shown("DATE=$(shell touch five)") == "[][][$(shell touch five)]"
    assert [path.name for path in tmp_path.iterdir()] == ["wrapper.mk"]
