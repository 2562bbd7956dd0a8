"""Install clients and try the line that docs/CLIENTS.md has for each. Run by hand: it installs.

    python scripts/try_clients.py [--keep FOLDER] [NAME ...]

Every client goes into a folder of its own, from the package indexes that pip and npm are set up
for; one that can't be installed is named and left out. An upstream on loopback plays the APIs, the
proxy runs in a temporary home before it, and the client runs in a home of its own with nothing of
the caller's environment. Each runs twice. A row is right when the first run asked upstream and the
second one didn't, or only for what is never cached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import anthropic_wire, bedrock_wire, cohere_wire, gemini_wire, openai_wire
from support.proxy import Proxy, running_proxy
from support.replies import Framing, Reply, json_reply, sse_reply
from support.upstream import Request, Upstream

INSTALL_SEC, RUN_SEC = 420, 90

ANTHROPIC = "claude-sonnet-4-5"
OPENAI = "gpt-4.1-mini"
GEMINI = "gemini-2.5-flash"

KEYS = dict.fromkeys(
    (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY"),
        *("CO_API_KEY", "CODEX_TEST_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ),
    "sk-test-0123456789",
)


@dataclass(frozen=True, slots=True)
class Client:
    """One row. `http://P` stands for the proxy's address. `code` is a program for the kind's own
    interpreter; `command` one of what was installed. `files` are put into its home."""

    name: str
    kind: str  # pip or npm
    packages: tuple[str, ...]
    environment: Mapping[str, str]
    code: str = ""
    command: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


_SAY = '{"role": "user", "content": "Say hello."}'

CLIENTS = (
    Client(
        "Claude Code",
        "npm",
        ("@anthropic-ai/claude-code",),
        {"ANTHROPIC_BASE_URL": "http://P", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        command=("claude", "-p", "Say hello.", "--model", ANTHROPIC),
    ),
    Client(
        "Codex",
        "npm",
        ("@openai/codex",),
        {},
        command=("codex", "exec", "--skip-git-repo-check", "--model", "gpt-5", "Say hello."),
        files=(
            (
                ".codex/config.toml",
                'model_provider = "llm-cache"\n[model_providers.llm-cache]\nname = "llm-cache"\n'
                'base_url = "http://P/openai/v1"\nenv_key = "CODEX_TEST_KEY"\n'
                'wire_api = "responses"\n',
            ),
        ),
    ),
    Client(
        "Gemini CLI",
        "npm",
        ("@google/gemini-cli",),
        {"GOOGLE_GEMINI_BASE_URL": "http://P/gemini", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        command=("gemini", "-m", GEMINI, "-p", "Say hello."),
        files=(
            (
                ".gemini/settings.json",
                '{"security": {"auth": {"selectedType": "gemini-api-key"}}, '
                '"privacy": {"usageStatisticsEnabled": false}, '
                '"general": {"disableAutoUpdate": true}}',
            ),
        ),
    ),
    Client(
        "anthropic (Python)",
        "pip",
        ("anthropic",),
        {"ANTHROPIC_BASE_URL": "http://P"},
        "import anthropic\n"
        f"anthropic.Anthropic().messages.create(model='{ANTHROPIC}', max_tokens=9, "
        f"messages=[{_SAY}])",
    ),
    Client(
        "openai (Python)",
        "pip",
        ("openai",),
        {"OPENAI_BASE_URL": "http://P/openai/v1"},
        "import openai\nclient = openai.OpenAI()\n"
        f"client.chat.completions.create(model='{OPENAI}', messages=[{_SAY}])\n"
        f"client.responses.create(model='{OPENAI}', input='Say hello.')",
    ),
    Client(
        "google-genai (Python)",
        "pip",
        ("google-genai",),
        {"GOOGLE_GEMINI_BASE_URL": "http://P/gemini"},
        "from google import genai\nclient = genai.Client()\n"
        f"client.models.generate_content(model='{GEMINI}', contents='Say hello.')",
    ),
    Client(
        "mistralai (Python)",
        "pip",
        ("mistralai",),
        {},
        "import os\nfrom mistralai.client import Mistral\n"
        "client = Mistral(api_key=os.environ['MISTRAL_API_KEY'], server_url='http://P/mistral')\n"
        f"client.chat.complete(model='mistral-small-latest', messages=[{_SAY}])",
    ),
    Client(
        "cohere (Python)",
        "pip",
        ("cohere",),
        {"CO_API_URL": "http://P/cohere"},
        f"import cohere\ncohere.ClientV2().chat(model='command-r7b-12-2024', messages=[{_SAY}])",
    ),
    Client(
        "boto3",
        "pip",
        ("boto3",),
        {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://P/bedrock", "AWS_DEFAULT_REGION": "us-east-1"},
        "import boto3\n"
        f"boto3.client('bedrock-runtime').converse(modelId='{bedrock_wire.NOVA}', "
        "messages=[{'role': 'user', 'content': [{'text': 'Say hello.'}]}])",
    ),
    Client(
        "LangChain, Anthropic",
        "pip",
        ("langchain-anthropic",),
        {"ANTHROPIC_BASE_URL": "http://P"},
        "from langchain_anthropic import ChatAnthropic\n"
        f"ChatAnthropic(model='{ANTHROPIC}').invoke('Say hello.')",
    ),
    Client(
        "LangChain, OpenAI",
        "pip",
        ("langchain-openai",),
        {"OPENAI_BASE_URL": "http://P/openai/v1"},
        "from langchain_openai import ChatOpenAI\n"
        f"ChatOpenAI(model='{OPENAI}').invoke('Say hello.')",
    ),
    Client(
        "LiteLLM, Anthropic",
        "pip",
        ("litellm",),
        {"ANTHROPIC_BASE_URL": "http://P", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        f"import litellm\nlitellm.completion('anthropic/{ANTHROPIC}', messages=[{_SAY}])",
    ),
    Client(
        "LiteLLM, OpenAI",
        "pip",
        ("litellm",),
        {"OPENAI_BASE_URL": "http://P/openai/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        f"import litellm\nlitellm.completion('openai/{OPENAI}', messages=[{_SAY}])",
    ),
    Client(
        "LiteLLM, Gemini",
        "pip",
        ("litellm",),
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        f"import litellm\nlitellm.completion('gemini/{GEMINI}', messages=[{_SAY}], "
        "api_base='http://P/gemini/v1beta')",
    ),
    Client(
        "DSPy, Anthropic",
        "pip",
        ("dspy",),
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        "import dspy\n"
        f"model = dspy.LM('anthropic/{ANTHROPIC}', api_base='http://P/v1', cache=False)\n"
        "model('Say hello.')",
    ),
    Client(
        "llm, OpenAI",
        "pip",
        ("llm",),
        {},
        command=("llm", "-m", "cached", "--no-stream", "--no-log", "Say hello."),
        files=(
            (
                ".config/io.datasette.llm/extra-openai-models.yaml",
                f"- model_id: cached\n  model_name: {OPENAI}\n  api_base: http://P/openai/v1\n"
                "  api_key_name: openai\n",
            ),
        ),
    ),
    Client(
        "Inspect, Anthropic",
        "pip",
        ("inspect-ai", "anthropic"),
        {"ANTHROPIC_BASE_URL": "http://P"},
        "import asyncio\nfrom inspect_ai.model import get_model\n"
        f"asyncio.run(get_model('anthropic/{ANTHROPIC}').generate('Say hello.'))",
    ),
    Client(
        "aider",
        "pip",
        ("aider-chat",),
        {"OPENAI_API_BASE": "http://P/openai/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        command=(
            *("aider", "--model", f"openai/{OPENAI}", "--no-git", "--yes-always", "--no-stream"),
            *("--no-check-update", "--analytics-disable", "--no-show-model-warnings"),
            *("--message", "Say hello."),
        ),
    ),
    Client(
        "@anthropic-ai/sdk",
        "npm",
        ("@anthropic-ai/sdk",),
        {"ANTHROPIC_BASE_URL": "http://P"},
        "import Anthropic from '@anthropic-ai/sdk';\n"
        f"await new Anthropic().messages.create({{model: '{ANTHROPIC}', max_tokens: 9, "
        f"messages: [{_SAY}]}});",
    ),
    Client(
        "openai (TypeScript)",
        "npm",
        ("openai",),
        {"OPENAI_BASE_URL": "http://P/openai/v1"},
        "import OpenAI from 'openai';\nconst client = new OpenAI();\n"
        f"await client.chat.completions.create({{model: '{OPENAI}', messages: [{_SAY}]}});\n"
        f"await client.responses.create({{model: '{OPENAI}', input: 'Say hello.'}});",
    ),
    Client(
        "@google/genai",
        "npm",
        ("@google/genai",),
        {"GOOGLE_GEMINI_BASE_URL": "http://P/gemini"},
        "import {GoogleGenAI} from '@google/genai';\n"
        "const client = new GoogleGenAI({apiKey: process.env.GEMINI_API_KEY});\n"
        f"await client.models.generateContent({{model: '{GEMINI}', contents: 'Say hello.'}});",
    ),
    Client(
        "Vercel AI SDK, Anthropic",
        "npm",
        ("ai", "@ai-sdk/anthropic"),
        {},
        "import {generateText} from 'ai';\nimport {createAnthropic} from '@ai-sdk/anthropic';\n"
        f"const model = createAnthropic({{baseURL: 'http://P/v1'}})('{ANTHROPIC}');\n"
        "await generateText({model, prompt: 'Say hello.'});",
    ),
    Client(
        "Vercel AI SDK, OpenAI",
        "npm",
        ("ai", "@ai-sdk/openai"),
        {},
        "import {generateText} from 'ai';\nimport {createOpenAI} from '@ai-sdk/openai';\n"
        f"const model = createOpenAI({{baseURL: 'http://P/openai/v1'}})('{OPENAI}');\n"
        "await generateText({model, prompt: 'Say hello.'});",
    ),
)


# The upstream


def play(request: Request) -> Reply:
    """Play each API by its path."""
    path = request.target.partition("?")[0]
    streamed = b'"stream":true' in request.body.replace(b" ", b"")
    if path.endswith("/messages"):
        if streamed:
            return sse_reply(anthropic_wire.stream("Hello!"))
        return json_reply(anthropic_wire.message())
    if path.endswith("/count_tokens"):
        return json_reply(anthropic_wire.count_tokens())
    if path.endswith("/chat/completions"):
        if streamed:
            return sse_reply(openai_wire.chat_stream("Hello!"))
        return json_reply(openai_wire.chat("Hello!"))
    if path.endswith("/responses"):
        if streamed:
            return sse_reply(openai_wire.response_stream("Hello!"))
        return json_reply(json.dumps(openai_wire.response_document()).encode())
    if path.endswith(":generateContent"):
        return json_reply(gemini_wire.answer("Hello!"))
    if path.endswith(":streamGenerateContent"):
        return sse_reply(gemini_wire.sse(gemini_wire.chunks("Hello!")))
    if path.endswith("/v2/chat"):
        return json_reply(cohere_wire.chat("Hello!"))
    if path.endswith("/converse"):
        return json_reply(bedrock_wire.conversed("Hello!"))
    if request.method == "HEAD":
        return Reply(framing=Framing.LENGTH)
    return json_reply(b'{"error": {"type": "not_found", "message": "not played here"}}', 404)


# A client


def tool(folder: Path, kind: str, name: str) -> str:
    """The path of an installed program."""
    return str(folder / ("bin" if kind == "pip" else "node_modules/.bin") / name)


def install(client: Client, folder: Path) -> str:
    """Install into `folder`; "" or what went wrong."""
    if client.kind == "pip":
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin/pip"), "install", "--quiet", *client.packages],
        ]
    else:
        steps = [["npm", "install", "--no-audit", "--no-fund", *client.packages]]
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        try:
            run = subprocess.run(
                step, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SEC, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{step[0]}: not done in {INSTALL_SEC} s"
        except OSError as error:
            return f"{step[0]}: {error.strerror}"
        if run.returncode:
            return (run.stderr.strip().splitlines() or ["failed"])[-1][:200]
    return ""


def version(client: Client, folder: Path) -> str:
    """The version that was installed of the client itself."""
    name = client.packages[0]
    if client.kind == "npm":
        package: str = json.loads((folder / "node_modules" / name / "package.json").read_text())[
            "version"
        ]
        return package
    code = f"from importlib.metadata import version; print(version({name!r}))"
    told = subprocess.run(
        [tool(folder, "pip", "python"), "-c", code], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


def run(client: Client, folder: Path, home: Path, address: str) -> str:
    """Run the client once; "" or its last words when it failed."""

    def at(text: str) -> str:
        return text.replace("http://P", address)

    home.mkdir(exist_ok=True)
    work = home.parent / "work"  # agents tell the model what is in the folder they run in
    work.mkdir(exist_ok=True)
    for name, text in client.files:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(at(text))
    if client.command:
        command = [tool(folder, client.kind, client.command[0]), *client.command[1:]]
    elif client.kind == "pip":
        command = [tool(folder, "pip", "python"), "-c", at(client.code)]
    else:
        (folder / "try.mjs").write_text(at(client.code))
        command = ["node", str(folder / "try.mjs")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_PROXY": "localhost,127.0.0.1",
        **KEYS,
        **{name: at(value) for name, value in client.environment.items()},
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {RUN_SEC} s"
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no words").splitlines()
        return f"exit code {done.returncode}: {words[-1][:160]}"
    return ""


def labels(proxy: Proxy, before: Mapping[str, int]) -> str:
    """What was counted since, in words."""
    now = proxy.stats()["session"]
    names = ("misses", "hits", "errors", "passed")
    return ", ".join(
        f"{name}: {now[name] - before[name]}" for name in names if now[name] != before[name]
    )


def tried(client: Client, folder: Path, place: Path, proxy: Proxy) -> Sequence[str]:
    """One row of the table."""
    if problem := install(client, folder):
        return client.name, "-", "not installed", problem
    told = []
    for _ in range(2):
        before = proxy.stats()["session"]
        failed = run(client, folder, place / "home", proxy.url)
        counted = labels(proxy, before) or "no request reached the proxy"
        told.append(f"{counted} ({failed})" if failed else counted)
    return client.name, version(client, folder), *told


def main() -> None:
    """Print the table as Markdown, row by row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="install here, and use what is there already")
    parser.add_argument("names", nargs="*", help="clients by the beginning of their names")
    asked = parser.parse_args()
    known = ("ANTHROPIC", "OPENAI", "GEMINI", "MISTRAL", "COHERE", "BEDROCK")
    show = partial(print, flush=True)
    show("| client | version | first run | second run |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary, Upstream(play) as upstream:
        place = Path(temporary)
        settings = {f"CACHE_UPSTREAM_{name}": upstream.url for name in known}
        settings |= {name: KEYS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        for number, client in enumerate(CLIENTS):
            if asked.names and not any(client.name.startswith(name) for name in asked.names):
                continue
            own = place / str(number)
            own.mkdir()
            packages = "-".join(client.packages).replace("/", "_")
            folder = (asked.keep or own) / f"{client.kind}-{packages}"
            with running_proxy(own / "proxy", settings) as proxy:  # a store of its own
                show("| " + " | ".join(tried(client, folder.absolute(), own, proxy)) + " |")


if __name__ == "__main__":
    main()
