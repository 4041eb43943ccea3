"""The widget's build: its size, its rules, its manifest; and its own tests, which Node runs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gate
from gate import widget
from gate.minify import minify

SOURCES = widget.sources()
ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "browser" / "node_modules"


def test_it_is_five_kilobytes_at_most() -> None:
    script = widget.script()
    assert len(script.gzipped) <= widget.GZIP_MOST
    assert gzip.decompress(script.gzipped) == script.body


def test_the_same_sources_give_the_same_bytes_and_name_them() -> None:
    first, second = widget.build(SOURCES), widget.build(SOURCES)
    assert first == second
    digest = base64.b64encode(hashlib.sha384(first.body).digest()).decode()
    assert first.integrity == f"sha384-{digest}"
    assert first.body.startswith(f"/*! signup-gate {gate.__version__} */".encode())
    assert first.path.startswith(f"/v1/gate.js?v={gate.__version__}-")


def test_a_changed_source_has_another_name(tmp_path: Path) -> None:
    for name in widget.PARTS:
        shutil.copy(SOURCES / name, tmp_path)
    messages = tmp_path / "messages.js"
    messages.write_text(messages.read_text("utf-8").replace("Looks good", "Looks fine"), "utf-8")
    assert widget.build(tmp_path).tag != widget.build(SOURCES).tag


FORBIDDEN = [
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write",
    r"\beval\b|new Function|setTimeout\(\s*[\"']",
    r"\.style\b|cssText|createElement\(\"style\"|\"style\"",
    r"\bcookie\b|localStorage|sessionStorage|indexedDB",
    r"\bconsole\b|\balert\(",
    r"sendBeacon|XMLHttpRequest|WebSocket",
]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_what_a_strict_page_would_refuse_is_not_there(pattern: str) -> None:
    assert not re.search(pattern, widget.script().body.decode())


UNREAD = [
    ("a template literal", r"`[^`]*\$\{"),
    ("var", r"\bvar\b"),
    ("function", r"\bfunction\b"),
    ("destructuring", r"\b(?:const|let)\s*[\[{]"),
    ("a getter", r"\bget \w+\("),
    ("what came after ES2020", r"(?:\|\||\?\?|&&)=|\.at\(|\bstatic\b|#\w+|\d_\d"),
    (
        "a shorthand property",
        r"\(\{\s*\w+\s*[,}]|: \{\s*\w+\s*[,}]|= \{\s*\w+\s*[,}]|\w+: [^,{}()]+, \w+ \}",
    ),
]


@pytest.mark.parametrize("rule", [row[1] for row in UNREAD], ids=[row[0] for row in UNREAD])
@pytest.mark.parametrize("name", widget.PARTS)
def test_the_sources_keep_the_rules_of_the_minifier(name: str, rule: str) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", (SOURCES / name).read_text("utf-8"), flags=re.DOTALL)
    code = re.sub(r"^import .*$|\"(?:[^\"\\\n]|\\.)*\"", '""', code, flags=re.MULTILINE)
    assert not re.search(rule, code)


SHORTENED = [
    ("const first = 1;\nconst second = first;", "let e=1,t=e;"),
    ("const go = (one, two = one) => ({ one: two });", "let e=(e,t=e)=>({one:t});"),
    ("const a1 = { name: 1 };\nconst name = a1.name;", "let e={name:1},t=e.name;"),
    ('const text = "const text";', 'let e="const text";'),
    ("const found = /const [/]a/.test(window.name);", "let e=/const [/]a/.test(window.name);"),
    ("const same = window.a === window.b;", "let e=window.a===window.b;"),
    ('const is = window.a === "b";', 'let e=window.a=="b";'),
    ('const not = window.a !== "b";', 'let e=window.a!="b";'),
    ("const LIMIT = 7;\nconst most = LIMIT * LIMIT;", "let e=7*7;"),
    ("const yes = [true, false, undefined];", "let e=[!0,!1,void 0];"),
    ("if (window.a) { window.b(); }", "if(window.a){window.b()}"),
    ("for (const one of window.all) { one(); }", "for(let e of window.all){e()}"),
]


@pytest.mark.parametrize(("code", "short"), SHORTENED, ids=[row[0] for row in SHORTENED])
def test_minify(code: str, short: str) -> None:
    assert minify(code) == short


def test_the_minified_program_is_the_same_program() -> None:
    """One that uses every form there is, run before and after."""
    code = (
        """
    const LIMIT = 3;
    const make = (first, ...rest) => { const all = [first, ...rest]; return { all: all, first }; };
    """.replace(", first }", ", first: first }")
        + """
    const outer = (name) => {
      let count = 0;
      const inner = (count2) => { count += count2; return name + count; };
      for (const one of [1, 2, LIMIT]) inner(one);
      return (other) => inner(other) + ((name2) => name2 + name)("x");
    };
    const label = { name: "name", held: true, "count": undefined };
    const text = outer("a;b")(4) + JSON.stringify(make(1, 2)) + label.name + label["count"];
    const checks = text === "x" ? /[/"]+/.exec(text) : [label?.held, !label.missing?.held];
    console.log(text + checks.join() + ((a, b = a) => a + b)(5));
    """
    )
    node = _node()
    said = [
        subprocess.run([node, "-e", program], capture_output=True, text=True, timeout=20)
        for program in (code, minify(code))
    ]
    assert said[0].returncode == 0, said[0].stderr
    assert said[0].stdout == said[1].stdout, said[1].stderr


def test_the_machine_and_the_messages() -> None:
    """Every event in every state; every language says everything."""
    tests = sorted(str(path) for path in (SOURCES / "test").glob("*.test.js"))
    done = subprocess.run([_node(), "--test", *tests], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) > 50


@pytest.mark.timeout(60)
def test_the_types() -> None:
    """TypeScript, strict, over the sources, the published types and a program that uses them."""
    compiler = CACHE / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        _excuse("TypeScript")
    done = subprocess.run(
        [_node(), str(compiler), "-p", str(SOURCES / "tsconfig.json")],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout


def test_the_package_ships_what_it_imports_under_the_gates_version() -> None:
    manifest = json.loads((SOURCES / "package.json").read_text())
    assert manifest["version"] == gate.__version__
    assert manifest["type"] == "module"
    shipped = set(manifest["files"])
    entry = manifest["exports"]["."]
    assert {entry["default"].removeprefix("./"), entry["types"].removeprefix("./")} <= shipped
    for name in shipped:
        assert (SOURCES / name).is_file()
        needed = re.findall(r"from \"\./([\w.]+)\"", (SOURCES / name).read_text("utf-8"))
        assert set(needed) <= shipped
    assert "dependencies" not in manifest


def test_the_lock_names_no_registry() -> None:
    lock = (ROOT / "tests" / "browser" / "package-lock.json").read_text()
    assert "http" not in lock
    assert '"integrity"' in lock


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        _excuse("node")
    return str(node)


def _excuse(what: str) -> None:
    reason = f"{what} is missing; scripts/browser-packages brings it"
    if os.environ.get("CI") == "true" or os.getuid() == 0:
        pytest.fail(reason)
    pytest.skip(reason)
