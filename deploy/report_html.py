"""From the few kinds of Markdown that reports use to one HTML page with everything inside.

Headlines, tables, lists, pictures, links to films, fenced code and paragraphs; nothing else.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #282c34; background: #fafaf8 }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: .9rem; display: block;
        overflow-x: auto }}
th, td {{ padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #d6d8dc }}
img, video {{ max-width: 100%; display: block; margin: .5rem 0 }}
pre {{ overflow-x: auto; background: #eeeff1; padding: .8rem; font-size: .8rem }}
</style></head><body>
{body}
</body></html>
"""
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}
LINK = re.compile(r"^(!?)\[(?P<words>[^\]]*)\]\((?P<file>[^)]+)\)$")


def to_html(
    lines: Sequence[str], *, folder: Path, title: str, has_films_inside: bool = True
) -> str:
    """The page; files that the lines link to are read from `folder` and put inside.

    Without `has_films_inside` films are left where they are, beside the page, and linked to.
    """
    body = "\n".join(_elements(lines, folder, has_films_inside=has_films_inside))
    return PAGE.format(title=html.escape(title), body=body)


def _elements(lines: Sequence[str], folder: Path, *, has_films_inside: bool) -> Iterator[str]:
    rest = list(lines)
    while rest:
        line = rest[0]
        if line.startswith("```"):
            length = 1 + next((i for i, text in enumerate(rest[1:]) if text == "```"), len(rest))
            code = "\n".join(map(html.escape, rest[1:length]))
            yield f"<pre>{code}</pre>"
            rest = rest[length + 1 :]
            continue
        kind = line[:2]
        length = 1
        if kind in ("| ", "- "):
            length = next(
                (i for i, text in enumerate(rest) if not text.startswith(kind[0])), len(rest)
            )
        block, rest = rest[:length], rest[length:]
        if kind == "| ":
            yield _table(block)
        elif kind == "- ":
            yield "<ul>" + "".join(f"<li>{html.escape(item[2:])}</li>" for item in block) + "</ul>"
        elif line.startswith("#"):
            marks, words = line.split(" ", 1)
            yield f"<h{len(marks)}>{html.escape(words)}</h{len(marks)}>"
        elif (match := LINK.match(line)) and not match[1] and not has_films_inside:
            yield f'<p><a href="{quote(match["file"])}">{html.escape(match["words"])}</a></p>'
        elif match:
            yield _media(folder / match["file"], words=match["words"])
        elif line:
            yield f"<p>{html.escape(line)}</p>"


def _table(block: Sequence[str]) -> str:
    """A table; its second line is Markdown's rule."""
    rows = []
    for tag, line in (("th", block[0]), *(("td", line) for line in block[2:])):
        cells = [html.escape(cell.strip()) for cell in line.strip("|").split("|")]
        rows.append("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>")
    return "<table>" + "".join(rows) + "</table>"


def _media(path: Path, *, words: str) -> str:
    """A picture or film with its bytes inside."""
    media_type = MEDIA_TYPES[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source, words = f"data:{media_type};base64,{data}", html.escape(words)
    if media_type.startswith("video"):
        return f'<p>{words}</p><video controls loop muted src="{source}"></video>'
    return f'<img alt="{words}" src="{source}">'
