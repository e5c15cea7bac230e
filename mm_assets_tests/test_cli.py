"""The command line: its shape, its exit statuses, and one sentence for every error."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mm_assets.cli import build_parser, main
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store import embedded
from mm_assets.store.objects import Store
from mm_assets_tests.lenient_rules import write_lenient_rules

#: Other programs call these: a change here is a change of the interface.
COMMANDS = {
    "demo": {"--release"},
    "drop create": {"folder", "--source", "--drop", "--index"},
    "drop check": {"folder"},
    "drop push": {"folder"},
    "drop register": {"uri", "--source", "--drop", "--index", "--description"},
    "release open": {
        "--release",
        "--drop",
        "--data-of",
        "--parent",
        "--policy",
        "--config",
        "--exclude",
        "--use",
        "--encoder",
        "--shards",
    },  # fmt: skip
    "release evaluation": {"--release", "--reason"},
    "release exclude": {"sample", "--release", "--reason"},
    "release list": set[str](),
    "release show": {"release"},
    "run": {"--release", "--stage", "--force", "--parallel"},
    "verify": set[str](),
    "trace": {"--sample", "--model"},
    "openlineage": {"--release", "--output"},
    "explain": {"--release", "--sample"},
    "rules show": {"--release"},
    "rules set": {"file", "--release", "--reason"},
    "policy list": set[str](),
    "policy show": {"policy"},
    "policy add": {"file"},
    "policy try": {"policy", "--release"},
    "encoder add": {"folder", "--name"},
    "encoder list": set[str](),
    "deadletter list": {"--release", "--reason", "--modality", "--source"},
    "deadletter show": {"letter", "--release"},
    "deadletter replay": {"--release", "--reason", "--modality", "--source", "--config", "--into"},
    "adopt": {"--asset", "--samples"},
    "replay": {"model", "--segments", "--seed", "--world-size"},
    "bisect": {"first", "second"},
    "train": {"--spec", "--output"},
    "diff": {"first", "second", "--html"},
    "store start": set[str](),
    "store stop": set[str](),
    "store env": set[str](),
    "ui": {"--port"},
}
ROOT = Path(__file__).parents[1]
EVERYWHERE = {"--help", "--json", "--verbose"}


def walk(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    families = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not families:
        yield " ".join(path), parser
    for family in families:
        for name, child in family.choices.items():
            yield from walk(child, (*path, name))


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {max(action.option_strings, key=len, default=action.dest) for action in parser._actions}


def run_mm(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    # Nothing of this process's environment: a developer's own settings must not reach a test.
    clean = {"PATH": os.defpath, "HOME": str(cwd), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mm_assets.cli", *arguments]
    return subprocess.run(command, env=clean | env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def assert_one_sentence(answer: subprocess.CompletedProcess[str], *parts: str) -> None:
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("mm: ")
    for part in parts:
        assert part in lines[0]


def test_commands_and_options_are_the_documented_ones() -> None:
    found = {name: options(parser) for name, parser in walk(build_parser())}
    assert found == {name: own | EVERYWHERE for name, own in COMMANDS.items()}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mm {metadata.version('mm_assets')}\n"


def test_help_of_every_command_fits_into_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for name, parser in walk(build_parser()):
        text = parser.format_help()
        assert max(map(len, text.splitlines())) <= 100, name
        assert f"usage: mm {name}" in text


def test_help_is_instant_and_loads_neither_dagster_nor_torch(tmp_path: Path) -> None:
    program = (
        "import sys, mm_assets.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'dagster', 'torch', 'boto3', 'pyarrow'} & set(sys.modules)))"
    )
    started = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert time.monotonic() - started < 2  # 0.2 s on an idle machine
    assert answer.stdout.splitlines()[-1] == "[]"


def test_drop_commands_do_not_load_dagster(tmp_path: Path) -> None:
    program = (
        "import sys, mm_assets.cli as cli\n"
        "cli.main(['drop', 'check', 'nowhere'])\n"
        "print(sorted({'dagster', 'torch'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["run"], ["run", "--release", "r", "--stage", "unknown"], ["trace"],
     ["trace", "--sample", "a", "--model", "b"], ["run", "--rel", "r"], ["run", "--release", "r", "--parallel", "0"],
     ["adopt"], ["rules", "set", "--release", "r", "promotion.yaml"]],
)  # fmt: skip
def test_bad_usage_exits_with_2_and_touches_nothing(arguments: list[str], tmp_path: Path) -> None:
    answer = run_mm(*arguments, "--json", env={}, cwd=tmp_path)
    assert answer.returncode == 2
    assert_one_sentence(answer)
    assert json.loads(answer.stdout) == {
        "error": answer.stderr.strip().removeprefix("mm: "), "class": "UsageError", "status": 2,
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_drop_name_exits_with_2(tmp_path: Path) -> None:
    answer = run_mm("release", "open", "--release", "r", "--drop", "no-slash", env=nowhere(), cwd=tmp_path)
    assert answer.returncode == 2
    assert_one_sentence(answer, "--drop no-slash", "SOURCE/DROP")


def test_an_error_is_one_json_object_where_a_program_reads(tmp_path: Path) -> None:
    command = ["release", "open", "--release", "r", "--drop", "no-slash", "--json"]
    answer = run_mm(*command, env=nowhere(), cwd=tmp_path)
    assert answer.returncode == 2
    assert_one_sentence(answer, "--drop no-slash")
    assert json.loads(answer.stdout) == {
        "error": answer.stderr.strip().removeprefix("mm: "), "class": "UsageError", "status": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data-of", "r0", "--drop", "s/d"], ("--data-of", "neither --drop nor --parent")),
        (["--data-of", "r0", "--parent", "r1"], ("--data-of", "neither --drop nor --parent")),
        ([], ("--drop", "is missing", "--data-of RELEASE")),
    ],
)
def test_a_release_has_data_of_its_own_or_of_another(
    arguments: list[str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    answer = run_mm("release", "open", "--release", "r", *arguments, env=nowhere(), cwd=tmp_path)
    assert answer.returncode == 2
    assert_one_sentence(answer, *parts)


def nowhere() -> dict[str, str]:
    """A store at a port where nothing listens."""
    return {
        "MM_STORE_URI": "s3://bucket/prefix",
        "MM_S3_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }


@pytest.mark.integration
@pytest.mark.parametrize(
    "arguments",
    [["release", "list"], ["verify"], ["run", "--release", "r"], ["demo"], ["trace", "--model", "production"]],
)
def test_an_unreachable_store_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    answer = run_mm(*arguments, env=nowhere(), cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert_one_sentence(answer, "s3://bucket", "does not answer", "MM_S3_ENDPOINT")


@pytest.mark.integration
def test_wrong_credentials_are_one_sentence(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    answer = run_mm("release", "list", env=seaweed_env | {"AWS_SECRET_ACCESS_KEY": "wrong"}, cwd=tmp_path)
    assert answer.returncode == 1
    assert_one_sentence(answer, "the store refused", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.integration
def test_missing_credentials_are_one_sentence(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    env = {name: value for name, value in seaweed_env.items() if not name.startswith("AWS_")}
    env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_CONFIG_FILE": "none"}
    answer = run_mm("release", "list", env=env, cwd=tmp_path)
    assert answer.returncode == 1
    assert_one_sentence(answer, "no credentials", "AWS_ACCESS_KEY_ID")


@pytest.mark.integration
def test_a_missing_bucket_is_one_sentence(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    answer = run_mm("release", "list", env=seaweed_env | {"MM_STORE_URI": "s3://no-such-bucket/x"}, cwd=tmp_path)
    assert answer.returncode == 1
    assert_one_sentence(answer, "s3://no-such-bucket")


@pytest.fixture
def guarded_store(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables of a read-only identity on a store with its own administrator."""
    home = tmp_path / "guarded"
    (home / "store").mkdir(parents=True)
    admin = {"accessKey": "admin", "secretKey": "admin-secret"}
    reader = {"accessKey": "reader", "secretKey": "reader-secret"}
    identities = [
        {"name": "mm", "credentials": [admin], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "reader", "credentials": [reader], "actions": [f"Read:{embedded.BUCKET}", f"List:{embedded.BUCKET}"]},
    ]
    (home / "store" / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
    server = embedded.ensure_running(home)
    yield server.environment() | {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
    embedded.stop(home)


@pytest.mark.integration
def test_a_read_only_identity_reads_and_is_refused_writing_in_one_sentence(
    guarded_store: dict[str, str], tmp_path: Path
) -> None:
    listed = run_mm("release", "list", "--json", env=guarded_store, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout.splitlines()[-1])["releases"] == []
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "index.jsonl").write_text('{"id": "a", "text": "one"}\n', encoding="utf-8")
    assert run_mm("drop", "create", "folder", "--source", "s", "--drop", "d", env={}, cwd=tmp_path).returncode == 0
    pushed = run_mm("drop", "push", "folder", env=guarded_store, cwd=tmp_path)
    assert pushed.returncode == 1
    assert_one_sentence(pushed, "the store refused", "rights")


@pytest.mark.integration
def test_data_in_s3_are_registered_and_what_leaves_nothing_exits_with_1(
    seaweed_env: dict[str, str], seaweed_store: Store, tmp_path: Path
) -> None:
    base = f"s3://{seaweed_store.bucket}/lake"
    for name, data in (("good/index.csv", b"id,text\n1,one\n"), ("none/index.csv", b"id,image\n1,gone.png\n")):
        seaweed_store.client.put_object(Bucket=seaweed_store.bucket, Key=f"lake/{name}", Body=data)
    command = ["drop", "register", "--source", "s", "--json"]
    good = run_mm(*command, f"{base}/good", "--drop", "d1", env=seaweed_env, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    result = json.loads(good.stdout.splitlines()[-1])
    assert {name: result[name] for name in ("source", "drop", "num_samples", "problems")} == {
        "source": "s", "drop": "d1", "num_samples": 1, "problems": [],
    }  # fmt: skip
    none = run_mm(*command, f"{base}/none", "--drop", "d2", env=seaweed_env, cwd=tmp_path)
    assert none.returncode == 1
    assert json.loads(none.stdout.splitlines()[-1])["num_samples"] == 0
    assert "0 samples are left" in none.stdout
    empty = run_mm(*command, f"{base}/empty", "--drop", "d3", env=seaweed_env, cwd=tmp_path)
    assert empty.returncode == 1
    assert_one_sentence(empty, f"{base}/empty: holds no objects")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "index.csv").write_bytes(b"id,image\n1,gone.png\n")
    created = run_mm("drop", "create", "folder", "--source", "s", "--drop", "d4", env={}, cwd=tmp_path)
    assert created.returncode == 1
    assert "0 samples are left" in " ".join(created.stdout.split())


@pytest.mark.integration
def test_a_release_that_is_not_open_is_one_sentence(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["release", "show", "ghost"], ["run", "--release", "ghost"]):
        answer = run_mm(*arguments, env=seaweed_env, cwd=tmp_path)
        assert answer.returncode == 2, answer.stderr
        assert_one_sentence(answer, "release ghost", "is not open")


@pytest.mark.integration
def test_a_release_is_built_on_one_that_is_open(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    for option in (["--data-of", "ghost"], ["--drop", "s/d", "--parent", "ghost"]):
        answer = run_mm("release", "open", "--release", "r", *option, env=seaweed_env, cwd=tmp_path)
        assert answer.returncode == 2, answer.stderr
        assert_one_sentence(answer, f"{option[-2]} ghost", "is not open")


@pytest.mark.integration
def test_rules_are_shown_and_replaced_on_record(
    seaweed_env: dict[str, str], seaweed_store: Store, push_samples: Callable[..., Path], tmp_path: Path
) -> None:
    def mm(*arguments: str) -> dict[str, Any]:
        answer = run_mm(*arguments, "--json", env=seaweed_env, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout.splitlines()[-1])

    push_samples(seaweed_store, "shapes", "d1")
    mm("release", "open", "--release", "r1", "--drop", "shapes/d1", "--config", "smoke", "--exclude", "shapes/d1/s00*")
    shown = mm("release", "show", "r1")
    assert shown["pins"]["exclusions"] == ["shapes/d1/s00*"]
    before = mm("rules", "show", "--release", "r1")
    assert before == {"release": "r1", "rules": shown["pins"]["rules"]}

    file = write_lenient_rules(tmp_path / "rules", promote_to="candidate") / "promotion.yaml"
    after = mm("rules", "set", "--release", "r1", str(file), "--reason", "a trial of the registry")
    digest = digest_bytes(file.read_bytes())
    assert after["rules"] == before["rules"] | {"promotion.yaml": digest}
    assert (after["replaced"]["reason"], after["replaced"]["changed"]) == (
        "a trial of the registry",
        ["promotion.yaml"],
    )
    assert mm("rules", "show", "--release", "r1") == after
    # The files of whoever runs something never count, and neither does a rules file that has no usable form.
    file.write_text("schema: mm.thresholds/2\n", encoding="utf-8")
    refused = run_mm("rules", "set", "--release", "r1", str(file), "--reason", "typo", env=seaweed_env, cwd=tmp_path)
    assert refused.returncode == 1
    assert_one_sentence(refused, "promotion.yaml", "is missing")
    environ = seaweed_env | {"MM_CONFIG_DIR": str(file.parent)}
    seen = run_mm("rules", "show", "--release", "r1", "--json", env=environ, cwd=tmp_path)
    assert json.loads(seen.stdout.splitlines()[-1]) == after


@pytest.mark.integration
def test_store_commands_control_the_server_of_a_home(tmp_path: Path) -> None:
    env = {"MM_HOME": str(tmp_path / "home")}
    try:
        started = run_mm("store", "start", "--json", env=env, cwd=tmp_path)
        assert started.returncode == 0, started.stderr
        printed = run_mm("store", "env", env=env, cwd=tmp_path)
        lines = dict(line.removeprefix("export ").split("=", 1) for line in printed.stdout.splitlines())
        assert lines["MM_S3_ENDPOINT"] == json.loads(started.stdout)["endpoint"]
        assert json.loads(run_mm("store", "env", "--json", env=env, cwd=tmp_path).stdout) == lines
        # What it prints is all another program needs.
        assert run_mm("release", "list", env=lines, cwd=tmp_path).returncode == 0
    finally:
        stopped = run_mm("store", "stop", "--json", env=env, cwd=tmp_path)
    assert json.loads(stopped.stdout) == {"running": False, "stopped": True}
    assert embedded.running(tmp_path / "home") is None


def test_controlling_a_configured_store_is_bad_usage(tmp_path: Path) -> None:
    answer = run_mm("store", "stop", env=nowhere(), cwd=tmp_path)
    assert answer.returncode == 2
    assert_one_sentence(answer, "s3://bucket/prefix", "MM_STORE_URI")


def test_an_unusable_setting_is_one_sentence(tmp_path: Path) -> None:
    answer = run_mm("release", "list", env={"MM_NUM_SHARDS": "many"}, cwd=tmp_path)
    assert answer.returncode == 1
    assert_one_sentence(answer, "MM_NUM_SHARDS", "'many'")


@pytest.mark.integration
def test_push_prints_what_check_notes(seaweed_env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "index.jsonl").write_text('{"id": "a", "text": "one"}\n', encoding="utf-8")
    (folder / ".hidden").write_text("x", encoding="utf-8")
    assert run_mm("drop", "create", "folder", "--source", "s", "--drop", "d", env={}, cwd=tmp_path).returncode == 0
    pushed = run_mm("drop", "push", "folder", env=seaweed_env, cwd=tmp_path)
    assert pushed.returncode == 0, pushed.stderr
    assert "Note: .hidden: is hidden, so it is not pushed." in pushed.stdout
