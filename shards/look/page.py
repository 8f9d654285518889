"""One static HTML page: text, tables and pictures in a single file that opens anywhere.

Nothing is loaded from outside and nothing runs: pictures are data URIs, and the page's own policy forbids scripts
and connections. Every text passes through `text`, because names of files come from strangers.
"""

import base64
import html
from collections.abc import Iterable, Sequence

from toto.plain import plain
from toto.shards.look.page_style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SHORT = 20  # characters of a cell that is never broken into lines


def document(title: str, body: Iterable[str]) -> str:
    """A whole page from parts that are HTML already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{"".join(body)}
</main>
</body>
</html>
"""


def text(value: object) -> str:
    """Anything as text on the page: escaped, and without characters that control or turn the line."""
    return html.escape("\n".join(plain(line) for line in str(value).split("\n")))


def name(value: object) -> str:
    """A stranger's name on one line, kept from turning the text around it."""
    return f"<bdi>{text(plain(str(value)))}</bdi>"


def section(heading: str, lead: str, *body: str) -> str:
    """A part of the page; `lead` is HTML, "" for none."""
    below = f'<p class="soft">{lead}</p>' if lead else ""
    return f"<section><h2>{text(heading)}</h2>{below}{''.join(body)}</section>"


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """Figures in a row: (what, figure, a remark or "")."""
    cells = (
        f"<div><dt>{text(what)}</dt><dd>{text(figure)}<small>{text(remark)}</small></dd></div>"
        for what, figure, remark in items
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; columns of numbers stand right-aligned, all else is a stranger's text."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    top = "".join(f'<th class="{"n" if n else ""}">{text(cell)}</th>' for cell, n in zip(head, numeric, strict=True))
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{_rows(rows)}</tbody></table></div>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A table of (what, value)."""
    return f'<div class="scroll"><table class="facts"><tbody>{_rows(rows)}</tbody></table></div>'


def picture(png: bytes, description: str) -> str:
    """A picture that the page holds itself."""
    return f'<img src="{_data_uri(png, "png")}" alt="{text(description)}">'


def moving_picture(gif: bytes, still_png: bytes, description: str) -> str:
    """A moving picture; those who asked their system for less motion see the still one."""
    calm = f'<source media="(prefers-reduced-motion: reduce)" srcset="{_data_uri(still_png, "png")}">'
    return f'<picture>{calm}<img src="{_data_uri(gif, "gif")}" alt="{text(description)}"></picture>'


def figure(shot: str, sides: Sequence[str], caption: str) -> str:
    """A card: a picture, the names of its two halves (or one name), and a caption that is HTML already."""
    names = "".join(f"<span>{text(side)}</span>" for side in sides)
    frame = "shot two" if len(sides) == 2 else "shot"
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><div class="{frame}">{shot}</div><div class="sides">{names}</div>{below}</figure>'


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rows(rows: Iterable[Sequence[object]]) -> str:
    return "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)


def _cell(value: object) -> str:
    if _is_number(value):
        return f'<td class="n">{value:,}</td>'
    short = ' class="w"' if len(str(value)) <= SHORT else ""
    return f"<td{short}>{name(value)}</td>"


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
