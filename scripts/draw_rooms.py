"""Print the rooms and the arrows between them as Mermaid, from the imports of the package.

python scripts/draw_rooms.py

docs/ARCHITECTURE.md has what this prints. A full arrow is one that no longer way stands for, a
dotted one goes past rooms in between.
"""

from __future__ import annotations

from import_graph import ROOMS, ROOT, all_imports, between_rooms


def drawing() -> str:
    """The block, fences included."""
    arrows = between_rooms(all_imports())
    rooms = ("sdk", *ROOMS)
    lines = ["```mermaid", "flowchart TD"]
    for room in rooms:
        inner = sorted(path.parent.name for path in (ROOT / room).glob("*/__init__.py"))
        title = "<br/>".join([f"<b>{room}/</b>", *(f"{name}/" for name in inner)])
        lines.append(f'    {room}["{title}"]')
    for left, right in sorted(arrows, key=lambda arrow: tuple(map(rooms.index, arrow))):
        line = "-.->" if _is_a_longer_way(left, right, arrows) else "-->"
        lines.append(f"    {left} {line} {right}")
    return "\n".join([*lines, "```"])


def _is_a_longer_way(start: str, end: str, arrows: set[tuple[str, str]]) -> bool:
    """Whether `end` can be reached from `start` by more than one arrow."""
    reached = {right for left, right in arrows if left == start} - {end}
    while more := {right for left, right in arrows if left in reached} - reached:
        reached |= more
    return end in reached


if __name__ == "__main__":
    print(drawing())
