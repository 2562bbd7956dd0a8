"""What `load_settings` promises: order, checks, every wrong setting told, no secret shown."""

from __future__ import annotations

import json
import os
import stat
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_cache.errors import SettingsError
from llm_cache.settings import Settings, is_loopback, load_settings
from llm_cache.upstreams import NamedUpstream

SECRET = "canary-5e1f0a77"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "LLM_CACHE_HOME": str(tmp_path / "home")}


def write_env(env: Mapping[str, str], text: str | bytes) -> Path:
    home = Path(env["LLM_CACHE_HOME"])
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / ".env"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem(env: Mapping[str, str], **values: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={**env, **values})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_are_those_of_the_table(tmp_path: Path, env: dict[str, str]) -> None:
    home = tmp_path / "home"
    settings = load_settings(environ=env)
    assert settings == Settings(home=home, log_file=home / "proxy.log")
    assert (settings.port, settings.host, settings.ttl_sec) == (4000, "127.0.0.1", 604800)
    assert (settings.max_entries, settings.max_bytes) == (5000, 2 * 1024**3)
    assert settings.max_request_bytes == settings.max_entry_bytes == 64 * 1024**2
    assert (settings.mode, settings.scope, settings.log_level) == ("cache", "credential", "info")
    assert settings.store_dir == home / "store"
    assert settings.pid_file == home / "proxy.pid"


def test_home_defaults_to_a_hidden_folder_of_the_user(tmp_path: Path) -> None:
    assert load_settings(environ={"HOME": str(tmp_path)}).home == tmp_path / ".llm-cache"


def test_flag_beats_environment_beats_env_file_beats_default(env: dict[str, str]) -> None:
    assert load_settings(environ=env).port == 4000
    write_env(env, "CACHE_PORT=4001\n")
    assert load_settings(environ=env).port == 4001
    env["CACHE_PORT"] = "4002"
    assert load_settings(environ=env).port == 4002
    assert load_settings({"CACHE_PORT": 4003}, environ=env).port == 4003
    assert load_settings({"CACHE_PORT": None}, environ=env).port == 4002


def test_an_empty_value_counts_as_not_set(env: dict[str, str]) -> None:
    write_env(env, "CACHE_PORT=4001\nCACHE_HOST=\n")
    settings = load_settings(environ={**env, "CACHE_PORT": "", "CACHE_AUTH_TOKEN": ""})
    assert (settings.port, settings.host, settings.auth_token) == (4001, "127.0.0.1", None)


def test_a_flag_that_is_no_setting_is_a_fault_of_the_caller(env: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="CACHE_PROT"):
        load_settings({"CACHE_PROT": 1}, environ=env)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1234", 1234),
        ("2 GiB", 2 << 30),
        ("64MiB", 64 << 20),
        ("500M", 500 << 20),
        ("500 MB", 500_000_000),
        ("1.5 kib", 1536),
        ("7B", 7),
    ],
)
def test_sizes_are_bytes_or_have_a_unit(env: dict[str, str], text: str, size: int) -> None:
    assert load_settings(environ={**env, "CACHE_MAX_BYTES": text}).max_bytes == size


@pytest.mark.parametrize(
    "text", ["-1", "1.5", "2 XB", "GiB", "1e9", "0x10", "99999999 TiB", "\u0661"]
)
def test_other_sizes_are_refused(env: dict[str, str], text: str) -> None:
    told = problem(env, CACHE_MAX_BYTES=text)
    assert told.startswith(f"CACHE_MAX_BYTES={text} (environment): must be a size such as")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CACHE_PORT", "99999", "must be 1 to 65535"),
        ("CACHE_PORT", "-1", "must be 1 to 65535"),
        ("CACHE_PORT", "http", "must be 1 to 65535"),
        ("CACHE_HOST", "http://localhost", "must be an IP address or a host name"),
        ("CACHE_HOST", "127.0.0.1:80", "must be an IP address or a host name"),
        ("CACHE_HOST", "300.1.1.1", "must be an IP address or a host name"),
        ("CACHE_TTL_SEC", "1h", "must be whole seconds"),
        ("CACHE_MAX_ENTRIES", "many", "must be a whole number"),
        ("CACHE_OFF", "2", "must be 1 or 0"),
        ("CACHE_MODE", "sometimes", "must be cache, fresh, bypass or replay"),
        ("CACHE_LOG_LEVEL", "loud", "must be silent, error, info or debug"),
        ("CACHE_SCOPE", "all", "must be credential or shared"),
        ("CACHE_REWRITE_BILLING", "maybe", "must be on, off or auto"),
        ("CACHE_MAX_REQUEST_BYTES", "0", "must be a size"),
        ("CACHE_UPSTREAM_TIMEOUT_SEC", "nan", "must be a number of seconds above 0"),
        ("CACHE_UPSTREAM_TIMEOUT_SEC", "0", "must be a number of seconds above 0"),
        ("CACHE_WORKERS", "4", "must be 1: this version can't do more yet"),
        ("CACHE_BACKEND", "disk", "must be local: this version can't do more yet"),
        ("CACHE_UPSTREAM", "localhost:8080", "must be an http:// or https:// URL"),
        ("CACHE_UPSTREAM", "ftp://host", "must be an http:// or https:// URL"),
        ("CACHE_UPSTREAM", "http://", "must be an http:// or https:// URL"),
        ("CACHE_UPSTREAM", "http://host:99999", "must be an http:// or https:// URL"),
        ("CACHE_UPSTREAM_OPENAI", "http://a b", "must be an http:// or https:// URL"),
        ("CACHE_ALLOW_ORIGINS", "*", "must be origins such as"),
        ("CACHE_ALLOW_ORIGINS", "https://a.example/path", "must be origins such as"),
        ("CACHE_ALLOW_HOSTS", "a.example:80", "must be host names or IP addresses"),
        ("CACHE_LOG_FILE", "~nobody-of-this-name/x", "must be a path"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    env: dict[str, str], name: str, value: str, allowed: str
) -> None:
    told = problem(env, **{name: value})
    assert told.startswith(f"{name}={value} (environment): ")
    assert allowed in told


def test_every_wrong_setting_is_told_in_one_error(env: dict[str, str]) -> None:
    path = write_env(env, "CACHE_MODE=never\n")
    told = problem(env, CACHE_PORT="99999", CACHE_TTL_SEC="x")
    assert f"CACHE_MODE=never ({path})" in told
    assert "CACHE_PORT=99999 (environment)" in told
    assert "CACHE_TTL_SEC=x (environment)" in told
    assert "\n" not in told


def test_a_redis_password_is_not_shown_when_the_backend_is_refused(env: dict[str, str]) -> None:
    told = problem(env, CACHE_BACKEND=f"redis://user:{SECRET}/@host/0")
    assert "CACHE_BACKEND=" in told
    assert SECRET not in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-box"])
def test_a_host_others_can_reach_needs_a_token(env: dict[str, str], host: str) -> None:
    assert "CACHE_AUTH_TOKEN must be set" in problem(env, CACHE_HOST=host)
    settings = load_settings(environ={**env, "CACHE_HOST": host, "CACHE_AUTH_TOKEN": SECRET})
    assert (settings.host, settings.auth_token) == (host, SECRET)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "[::1]"])
def test_loopback_needs_no_token(env: dict[str, str], host: str) -> None:
    assert is_loopback(load_settings(environ={**env, "CACHE_HOST": host}).host)


def test_tls_needs_both_files_and_they_must_exist(tmp_path: Path, env: dict[str, str]) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("x")
    told = problem(env, CACHE_TLS_CERTFILE=str(cert))
    assert "CACHE_TLS_KEYFILE: must be set, because CACHE_TLS_CERTFILE is" in told
    both = {"CACHE_TLS_CERTFILE": str(cert), "CACHE_TLS_KEYFILE": str(key)}
    assert f"CACHE_TLS_KEYFILE={key} (environment): must be a file that exists" in problem(
        env, **both
    )
    key.write_text("x")
    settings = load_settings(environ={**env, **both})
    assert (settings.tls_certfile, settings.tls_keyfile, settings.tls) == (cert, key, True)


def test_relative_paths_start_at_the_home(tmp_path: Path, env: dict[str, str]) -> None:
    settings = load_settings(environ={**env, "CACHE_LOG_FILE": "logs/mine.log"})
    assert settings.log_file == tmp_path / "home" / "logs" / "mine.log"
    assert load_settings(environ={**env, "CACHE_LOG_FILE": "none"}).log_file is None


def test_quiet_is_silent(env: dict[str, str]) -> None:
    settings = load_settings(environ={**env, "CACHE_QUIET": "1", "CACHE_LOG_LEVEL": "debug"})
    assert settings.log_level == "silent"


def test_providers_are_found_by_name(env: dict[str, str]) -> None:
    settings = load_settings(
        environ={
            **env,
            "ANTHROPIC_API_KEY_REAL": "a-key",
            "MY_OWN_API_KEY_REAL": "b-key",
            "CACHE_UPSTREAM_OPENAI": "https://gateway.example/v1/",
            "CACHE_UPSTREAM_TIMEOUT_SEC": "5",
            "CACHE_ALLOW_ORIGINS": "https://A.example, http://localhost:3000",
            "CACHE_ALLOW_HOSTS": "box.lan,::1",
        }
    )
    assert settings.real_keys == {"anthropic": "a-key", "my_own": "b-key"}
    assert settings.upstreams == {"openai": "https://gateway.example/v1"}
    assert settings.upstream_timeout_sec == 5
    assert settings.allow_origins == ("https://a.example", "http://localhost:3000")
    assert settings.allow_hosts == ("box.lan", "[::1]")


def test_no_secret_in_repr_error_or_traceback(env: dict[str, str]) -> None:
    settings = load_settings(
        environ={**env, "CACHE_AUTH_TOKEN": SECRET, "ANTHROPIC_API_KEY_REAL": SECRET}
    )
    assert SECRET not in repr(settings)
    wrong = {
        "CACHE_AUTH_TOKEN": f"{SECRET} with space",
        "OPENAI_API_KEY_REAL": f"{SECRET}\n",
        "CACHE_UPSTREAM": f"http://user:{SECRET}@host",
        "CACHE_UPSTREAM_GEMINI": f"https://host/?key={SECRET}",
        "CACHE_UPSTREAM_OPENAI": f"user:{SECRET}@host",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={**env, **wrong})
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert all(name in told for name in wrong)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"CACHE_PORT=4001\n\n# fine\nthis is {SECRET} no setting\n", 4),
        (f'CACHE_PORT=4001\nCACHE_AUTH_TOKEN="{SECRET}\n', 2),
        (f"CACHE_AUTH_TOKEN {SECRET}\n", 1),
        (b"CACHE_PORT=1\nCACHE_HOST=\xff\xfe\n", 2),
    ],
)
def test_an_env_file_that_cannot_be_read_names_the_line_and_no_secret(
    env: dict[str, str], text: str | bytes, line: int
) -> None:
    path = write_env(env, text)
    told = problem(env)
    assert told.startswith(f"{path}, line {line}: ")
    assert SECRET not in told


def test_an_env_file_is_taken_as_written(env: dict[str, str]) -> None:
    write_env(
        env,
        "\ufeff# a comment\nexport CACHE_PORT=4001\nANTHROPIC_API_KEY_REAL='a$HOME#b'\n"
        "CACHE_MODE = fresh  # said later\nUNKNOWN=1\n",
    )
    settings = load_settings(environ=env)
    assert (settings.port, settings.mode) == (4001, "fresh")
    assert settings.real_keys == {"anthropic": "a$HOME#b"}


def test_an_unreadable_env_file_is_an_error(env: dict[str, str]) -> None:
    (Path(env["LLM_CACHE_HOME"]) / ".env").mkdir(parents=True)
    assert ".env: can't be read" in problem(env)


def test_the_home_is_private_whatever_the_umask(tmp_path: Path, env: dict[str, str]) -> None:
    home = tmp_path / "a" / "home"
    settings = load_settings(environ={**env, "LLM_CACHE_HOME": str(home)})
    assert not home.exists()  # reading settings makes nothing
    for mask in (0o000, 0o777 & ~0o500):
        before = os.umask(mask)
        try:
            settings.make_home()
        finally:
            os.umask(before)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        settings.make_home()  # once more changes nothing
        home.rmdir()


def test_a_home_that_cannot_be_made_says_why(tmp_path: Path, env: dict[str, str]) -> None:
    home = tmp_path / "home"
    home.symlink_to(tmp_path / "gone" / "elsewhere")
    with pytest.raises(SettingsError, match=r"LLM_CACHE_HOME=.*: can't be created: "):
        load_settings(environ=env).make_home()


def test_a_home_that_is_a_file_says_so(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "home").write_text("")
    assert "home: isn't a folder; set LLM_CACHE_HOME to one" in problem(env)


def test_named_upstreams_are_written_out_or_json_or_a_file(env: dict[str, str]) -> None:
    wanted = {
        "mine": NamedUpstream("http://10.0.0.5:8080", "anthropic", "MINE_KEY", "sk-mine"),
        "other-gw": NamedUpstream("https://gw.example/llm"),
    }
    doc = {
        "mine": {"url": "http://10.0.0.5:8080/", "provider": "anthropic", "key": "MINE_KEY"},
        "other-gw": "https://gw.example/llm",
    }
    write_env(env, "MINE_KEY=sk-mine\n")
    (Path(env["LLM_CACHE_HOME"]) / "up.json").write_text(json.dumps(doc))
    for text in (
        "mine=http://10.0.0.5:8080 provider=anthropic key=MINE_KEY; other-gw=https://gw.example/llm",
        " other-gw = https://gw.example/llm/ ;\n"
        "mine=http://10.0.0.5:8080,key=MINE_KEY,provider=anthropic;",
        json.dumps(doc, indent=2),
        "up.json",
        str(Path(env["LLM_CACHE_HOME"]) / "up.json"),
    ):
        settings = load_settings(environ={**env, "CACHE_UPSTREAMS": text})
        assert settings.named_upstreams == wanted, text
    assert "sk-mine" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mine=", "mine: the URL must be an http:// or https:// URL"),
        ("mine=10.0.0.5:8080", "mine: the URL must be an http:// or https:// URL"),
        ("mine=http://user:pw@host", "mine: the URL must be"),
        ("a=http://h; b", "'b' isn't followed by `=` and a base URL"),
        ("a=http://h;a=http://i", "a is there twice"),
        ("A=http://h", "'A' is no name"),
        ("a/b=http://h", "'a/b' is no name"),
        ("health=http://h", "health can't be a name"),
        ("cache=http://h", "cache can't be a name"),
        ("v1=http://h", "v1 can't be a name"),
        ("v1beta=http://h", "v1beta can't be a name"),
        ("a=http://h keys=X", "a': 'keys' must be provider=NAME or key=VARIABLE"),
        ("a=http://h b=http://i", "`;` ends an upstream"),
        ("a=http://h key=sk-oops", "a: key must be the name of the variable that holds the key"),
        ("a=http://h key=NOT_SET", "a: key=NOT_SET: this variable isn't set"),
        ("a=http://h provider=", "a: provider must be a provider's name"),
        ('{"a": 1}', "'a': must be a URL, or an object with url"),
        ('{"a": {"url": "http://h", "x": 1}}', "'a': must be a URL, or an object with url"),
        ('{"a": {"url": 1}}', "a: the URL must be"),
        ('{"a": "http://h", "a": "http://i"}', "a is there twice"),
        ('{"a": "http://h"', "isn't valid JSON"),
        ("nowhere.json", "the path of a JSON file that can be read (No such file or directory)"),
    ],
)
def test_a_wrong_named_upstream_is_told(env: dict[str, str], text: str, told: str) -> None:
    message = problem(env, CACHE_UPSTREAMS=text)
    assert message.startswith("CACHE_UPSTREAMS (environment): ")
    assert told in message
    assert "sk-oops" not in message
    assert "pw" not in message


def test_one_name_has_one_upstream(env: dict[str, str]) -> None:
    told = problem(env, CACHE_UPSTREAMS="groq=http://h", CACHE_UPSTREAM_GROQ="http://i")
    assert "groq: CACHE_UPSTREAM_GROQ names an upstream for it as well" in told
