"""Requests as coding agents send them: twice the same conversation, in two runs.

`claude_code`, `codex` and `gemini_cli` make the body of one run; `run` is 1 or 2 and changes what
the agent itself changes from run to run, nothing else. `day`, `folder`, `commit` change the rest.
"""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]

AGENT_IDS = {1: "a685696", 2: "a4d34a7f798602e75"}
SHELL_IDS = {1: "b4ir7gg7r", 2: "bgaopxykb"}
SESSIONS = {1: "4d40dd77-0501-457e-a7bf-a68693f97afc", 2: "b8f591d3-bd10-51f7-b4fc-b4df3393e821"}
GIT = (
    "gitStatus: This is the git status at the start of the conversation. Note that this status is "
    "a snapshot in time, and will not update during the conversation.\n\nCurrent branch: main\n\n"
    "Main branch (you will usually use this for PRs): main\n\nGit user: Ada\n\nStatus:\n"
)


def _used(name: str, number: int, **given: Any) -> Body:
    call = {"type": "tool_use", "id": f"toolu_0{number}", "name": name, "input": given}
    return {"role": "assistant", "content": [call]}


def _result(number: int, content: Any) -> Body:
    block = {"type": "tool_result", "tool_use_id": f"toolu_0{number}", "content": content}
    return {"role": "user", "content": [block]}


def claude_code(
    run: int = 1,
    *,
    day: str = "2026-11-25",
    folder: str = "/srv/app",
    commit: str = "a1b2c3d first",
    prompt: str = "Find the slow test.",
    report: str = "The slow test is test_io.",
) -> Body:
    """After a sub-agent, a background shell, its notification and an output over 30 kB."""
    shell, session = SHELL_IDS[run], SESSIONS[run]
    output = f"/tmp/claude-1000/-srv-app/{session}/tasks/{shell}.output"
    kept = f"/home/ada/.claude/projects/-srv-app/{session}/tool-results/{shell}.txt"
    reminder = (
        "<system-reminder>\nAs you answer the user's questions, you can use the following context:"
        f"\n# claudeMd\nContents of {folder}/CLAUDE.md (project instructions, checked into the "
        f"codebase):\n\nUse tabs.\n# currentDate\nToday's date is {day}.\n\n      IMPORTANT: this "
        "context may or may not be relevant to your tasks.\n</system-reminder>\n"
    )
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32000,
        "stream": True,
        "metadata": {"user_id": f"user_x_session_{session}"},
        "system": [
            {
                "type": "text",
                "text": f"x-anthropic-billing-header: cc_version=2.1.63.a{run}3; cch=e222{run};",
            },
            {
                "type": "text",
                "text": "You are Claude Code, Anthropic's official CLI for Claude.",
            },
            {
                "type": "text",
                "text": "Be brief.\n\n# Environment\nYou have been invoked in the following "
                f"environment: \n - Primary working directory: {folder}\n - Is a git repository: "
                "true\n\n# Scratchpad Directory\n\nIMPORTANT: Always use this scratchpad directory "
                "for temporary files instead of `/tmp` or other system temp directories:\n"
                f"`/tmp/claude-1000/{folder.replace('/', '-')}/{session}/scratchpad`\n\n"
                f"{GIT}M src/app.py\n\nRecent commits:\n{commit}",
            },
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": reminder}, {"type": "text", "text": prompt}],
            },
            _used("Task", 1, prompt="look"),
            _result(
                1,
                [
                    {"type": "text", "text": report},
                    {
                        "type": "text",
                        "text": f"agentId: {AGENT_IDS[run]} (for resuming to continue this agent's "
                        "work if needed)\n<usage>total_tokens: 21965\ntool_uses: 3\n"
                        f"duration_ms: {28216 * run}</usage>",
                    },
                ],
            ),
            _used("Bash", 2, command="npm ci", run_in_background=True),
            _result(
                2,
                f"Command running in background with ID: {shell}. Output is being written to: "
                f"{output}. You will be notified when it completes. To check interim output, use "
                "Read on that file path.",
            ),
            {
                "role": "user",
                "content": f"<task-notification>\n<task-id>{shell}</task-id>\n<tool-use-id>"
                f"toolu_02</tool-use-id>\n<output-file>{output}</output-file>\n<status>completed"
                '</status>\n<summary>Background command "npm ci" completed (exit code 0)</summary>'
                "\n<usage><subagent_tokens>9</subagent_tokens><tool_uses>0</tool_uses>"
                f"<duration_ms>{1191 * run}</duration_ms></usage>\n</task-notification>\n"
                f"Read the output file to retrieve the result: {output}",
            },
            _used("Bash", 3, command="cat big.log"),
            _result(
                3,
                f"<persisted-output>\nOutput too large (1.2MB). Full output saved to: {kept}\n\n"
                "Preview (first 2KB):\nline 1\n...\n</persisted-output>",
            ),
            _used("Agent", 4, prompt="watch", run_in_background=True),
            _result(
                4,
                "Async agent launched successfully. (This tool result is internal metadata.)\n"
                f"agentId: {AGENT_IDS[run]} (internal ID - do not mention to user. Use SendMessage "
                f"with to: '{AGENT_IDS[run]}', summary: '<5-10 word recap>' to continue this "
                f"agent.)\nThe agent is working in the background.\noutput_file: {output}",
            ),
            _used("TaskOutput", 5, task_id="as the model wrote it"),
            _result(
                5,
                f"<retrieval_status>success</retrieval_status>\n\n<task_id>{shell}</task_id>\n\n"
                "<task_type>local_bash</task_type>\n\n<output>\nadded 12 packages\n</output>",
            ),
        ],
    }


def codex(
    run: int = 1,
    *,
    day: str = "2026-11-25",
    folder: str = "/srv/app",
    prompt: str = "Find the slow test.",
    output: str = "tests/test_io.py",
) -> Body:
    """After a command, one that goes on, a patch and a script."""
    uuid = f"01a059de-d5f8-7e30-a52d-7f0677eac1c{run}"
    chunk = {1: "5ede2a", 2: "89fbdf"}[run]
    passed = {"internal_chat_message_metadata_passthrough": {"turn_id": f"{uuid}-t"}}

    def said(role: str, text: str) -> Body:
        content = [{"type": "input_text", "text": text}]
        return {"type": "message", "role": role, "id": f"msg_{uuid}", "content": content, **passed}

    def ran(number: int, name: str, result: Any, kind: str = "function_call") -> list[Body]:
        call = {"type": kind, "name": name, "call_id": f"call_{number}", "arguments": "{}"}
        told = {"type": f"{kind}_output", "call_id": f"call_{number}", "output": result}
        return [call, {**told, "id": f"fco_{uuid}", **passed}]

    return {
        "model": "gpt-5.3-codex",
        "instructions": "You are Codex, based on GPT-5. You are running as a coding agent.",
        "input": [
            said(
                "user",
                f"# AGENTS.md instructions for {folder}\n\n<INSTRUCTIONS>\nUse tabs.\n"
                "</INSTRUCTIONS>",
            ),
            said(
                "user",
                f"<environment_context>\n  <cwd>{folder}</cwd>\n  <shell>bash</shell>\n  "
                f"<current_date>{day}</current_date>\n  <timezone>Europe/Rome</timezone>\n"
                "</environment_context>",
            ),
            said("user", prompt),
            {"type": "reasoning", "id": "rs_68d5", "summary": [], "encrypted_content": "gAAA"},
            *ran(
                1,
                "exec_command",
                f"Chunk ID: {chunk}\nWall time: 0.00{run}0 seconds\nProcess exited with code 0\n"
                f"Original token count: 3\nOutput:\n{output}\n",
            ),
            *ran(
                2,
                "exec_command",
                f"Chunk ID: {chunk}\nWall time: {run}.0017 seconds\nProcess running with session "
                f"ID {27298 + run}\nOriginal token count: 12\nOutput:\nworking\n",
            ),
            *ran(
                3,
                "apply_patch",
                f"Exit code: 0\nWall time: 0.{run} seconds\nOutput:\nSuccess. Updated.\n",
                "custom_tool_call",
            ),
            *ran(
                4,
                "exec",
                [
                    {
                        "type": "input_text",
                        "text": f"Script completed\nWall time 0.{run} seconds\nOutput:\n",
                    },
                    {"type": "input_text", "text": "done"},
                ],
                "custom_tool_call",
            ),
            {"type": "item_reference", "id": "msg_68d5aa"},
        ],
        "stream": True,
        "store": False,
        "prompt_cache_key": uuid,
        "client_metadata": {"x-codex-installation-id": uuid, "session_id": uuid, "turn_id": uuid},
    }


def gemini_cli(
    run: int = 1,
    *,
    day: str = "Wednesday, November 25, 2026",
    folder: str = "/srv/app",
    prompt: str = "Find the slow test.",
    output: str = "tests/test_io.py",
) -> Body:
    """After two shell calls, one with a process in the background, and one that goes on."""

    def ran(number: int, result: str) -> list[Body]:
        name = "run_shell_command"
        identity = f"{name}-17680827{run}372{number}-9302266ed33{run}a"
        call = {"id": identity, "name": name, "args": {"command": f"make {number}"}}
        told = {"id": identity, "name": name, "response": {"output": result}}
        return [
            {"role": "model", "parts": [{"functionCall": call}]},
            {"role": "user", "parts": [{"functionResponse": told}]},
        ]

    return {
        "systemInstruction": {
            "role": "user",
            "parts": [
                {
                    "text": "You are Gemini CLI, an interactive CLI agent specializing in software "
                    "engineering tasks."
                }
            ],
        },
        "contents": [
            {
                "role": "user",
                "parts": [
                    {
                        "text": "<session_context>\nThis is the Gemini CLI. We are setting up the "
                        f"context for our chat.\nToday's date is {day} (formatted according to the "
                        "user's locale).\nMy operating system is: linux\nThe project's temporary "
                        f"directory is: /home/ada/.gemini/tmp{folder}\n- **Workspace Directories:**"
                        f"\n  - {folder}\n- **Directory Structure:**\n\nShowing 200 items.\n\n"
                        f"{folder}/\n├───Makefile\n\n</session_context>"
                    }
                ],
            },
            {"role": "user", "parts": [{"text": prompt}]},
            *ran(1, f"Output: {output}\nProcess Group PGID: {15226 * run}"),
            *ran(
                2,
                "Command: make 2 &\nDirectory: (root)\nOutput: (empty)\nBackground PIDs: "
                f"{12346 * run}, {12347 * run}\nProcess Group PGID: {12345 * run}",
            ),
            *ran(
                3,
                f"Command moved to background (PID: {49796 * run}). Output hidden. Press Ctrl+B to "
                "view.",
            ),
        ],
        "generationConfig": {"temperature": 0},
    }
