"""report.py CHROMIUM LIST: reports in a browser: how they look, and every number in them computed again from the traces.

A line of LIST has a page, the layer that colours its text (or nothing: the first), and its traces, with tabs between.
Prints what is wrong; nothing when all is well.
"""
import json
import sys
import tempfile
import time

import h5py
import numpy as np

from browser import Browser

SECTIONS = ["load", "balance", "router", "pairs", "text", "exchange", "phases", "neurons", "quiet", "norms", "memory"]
NEEDS = {"load": ["expert_load"], "balance": ["expert_load"], "router": ["router_probs"], "pairs": ["expert_indices"],
         "text": ["expert_indices"], "exchange": ["dispatch_rows"], "phases": ["phase_seconds"],
         "neurons": ["ffn_hidden", "expert_indices"], "quiet": ["ffn_hidden", "expert_indices"], "norms": ["resid_post"],
         "memory": ["memory_bytes"]}
AT_END = ("phases", "memory")
OF_TOKENS = ("router", "pairs", "text", "neurons", "quiet", "norms")
wrong = []


def check(good, *words):
    if not good:
        wrong.append(" ".join(str(word) for word in words))


# ---- the numbers again ----

def pairs_of(trace):
    experts = trace["router_probs" if "router_probs" in trace else "expert_load"].shape[-1]
    count = np.zeros((experts, experts))
    for layer in trace["expert_indices"][...]:
        for token in layer:
            for one in token:
                for other in token:
                    count[one, other] += one != other
    count[np.diag_indices(experts)] = np.nan
    return count


def activity_of(trace):
    """Of each layer and expert the root mean square; of each layer the parts near zero, of outputs and of neurons."""
    layers, experts = trace["expert_load"].shape
    rms, quiet = np.full((layers, experts), np.nan), np.empty((layers, 2))
    for layer in range(layers):
        hidden, chosen = trace["ffn_hidden"][layer].astype("f8"), trace["expert_indices"][layer]
        near = np.abs(hidden) <= 0.01 * np.sqrt((hidden ** 2).mean(-1, keepdims=True))
        dead = []
        for expert in np.unique(chosen):
            rms[layer, expert] = np.sqrt((hidden[chosen == expert] ** 2).mean())
            dead.append(near[chosen == expert].all(0).mean())
        quiet[layer] = near.mean(), np.mean(dead)
    return rms, quiet


def put_together(square, bin):
    """Sums of so many neighbours along both axes; NaN where there is nothing to add."""
    parts = range(0, len(square), bin)
    return np.array([[np.nansum(square[i:i + bin, j:j + bin]) for j in parts] for i in parts])


def expected_of(section, trace, layer):
    """The cells of a section's table, without its heads; NaN where there is a dash."""
    if section == "load":
        return trace["expert_load"][...]
    if section == "balance":
        load = trace["expert_load"][...]
        return (load.max(1) / load.mean(1))[:, None]
    if section == "router":
        probs = trace["router_probs"][...].astype("f8")
        entropy = -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1) / np.log(probs.shape[-1])
        return np.stack([entropy.mean(1), probs.max(-1).mean(1)], 1)
    if section == "pairs":
        return pairs_of(trace)
    if section == "text":
        order = np.lexsort((trace["position"][...], trace["sequence"][...]))
        columns = [trace[name][...][order] for name in ("token", "sequence", "position", "token_ids")]
        return np.stack([*columns, trace["expert_indices"][trace.place(layer), :, 0][order]], 1)
    if section == "exchange":
        return trace["dispatch_rows"][...].sum(0) * 4 * json.loads(trace.attrs["config_json"])["emb_size"]
    if section == "phases":
        return trace["phase_seconds"][...].sum(0) + trace["outer_seconds"][...]
    if section == "neurons":
        return activity_of(trace)[0]
    if section == "quiet":
        return activity_of(trace)[1]
    if section == "norms":
        norms = [np.linalg.norm(trace[name][...].astype("f8"), axis=-1) for name in ("resid_pre", "resid_mid", "resid_post")]
        return np.stack([f(norm, axis=1) for norm in norms for f in (np.mean, np.min, np.max)], 1)
    memory = trace["memory_bytes"][...]
    return np.stack([memory[:, 0], memory[:, 1] - memory[:, 0]], 1)


def numbers_of(rows):
    return np.array([[float("nan") if cell == "–" else float(cell) for cell in row] for row in rows])


def table(page, section, run):
    rows = page.ask(f"""[...document.querySelectorAll('#{section} .run')[{run}].querySelectorAll('table tr')].map(
        row => [...row.cells].map(cell => cell.textContent))""")
    if section == "text":  # the words of the tokens have a check of their own
        return numbers_of([row[:4] + row[5:] for row in rows[1:]])
    return numbers_of([row[1:] for row in rows[1:]])


class Trace:
    """A trace as far as it is written."""

    def __init__(self, path):
        self.path = path
        self.file = h5py.File(path, "r")
        self.attrs, self.tokens = self.file.attrs, int(self.file["tokens_done"][()])

    def place(self, layer):
        """Of a layer by its number; None: the first."""
        return 0 if layer is None else list(self.file["layer"][...]).index(layer)

    def __contains__(self, name):
        return name in self.file

    def __getitem__(self, name):
        data = self.file[name]
        axes = [name if "CLASS" in data.attrs else next(iter(dim.keys())).strip("/") for dim in data.dims]
        return data[tuple(slice(self.tokens if axis == "token" else None) for axis in axes)]


def is_there(section, trace):
    return (all(name in trace for name in NEEDS[section]) and (section not in AT_END or trace.attrs["complete"] == 1)
            and (section not in OF_TOKENS or trace.tokens > 0))


def check_section(page, section, run, trace, layer):
    name = f"{section} of trace {run}"
    missing = page.ask(f"document.querySelectorAll('#{section} .run')[{run}].querySelector('.missing')?.textContent")
    if not is_there(section, trace):
        absent = next((need for need in NEEDS[section] if need not in trace), None)
        words = [f"{absent} was not recorded", f"--trace-only ...,{absent}"] if absent else [
            "not complete" if section in AT_END else "no token"]
        check(missing and all(word in missing for word in words), f"{name}: in place of the picture:", missing)
        return
    check(missing is None, f"{name}: {missing}")
    found, expected = table(page, section, run), expected_of(section, trace, layer)
    if section in ("pairs", "exchange") and found.shape != expected.shape:
        expected = put_together(expected, -(-len(expected) // len(found)))
    if found.shape != expected.shape:
        check(False, f"{name}: a table of {found.shape}, not {expected.shape}")
        return
    exact = np.issubdtype(expected.dtype, np.integer)
    same = np.array_equal(found, expected) if exact else np.allclose(found, expected, 2e-5, 1e-9, equal_nan=True)
    check(same, f"{name}: numbers\n{found[:3]}\nnot\n{expected[:3]}")


def check_ramp(page, section):
    """The ramp's ends are the colours of the least and the largest number of a map, or its beginning that of 0."""
    cells = page.ask(f"""[...document.querySelectorAll('#{section} .cells path')].map(
        cell => [parseFloat(cell.querySelector('title').textContent.split(': ').pop()), cell.getAttribute('fill')])""")
    numbers = [number for number, _ in cells]
    least = min(numbers, default=0) if section == "neurons" else 0
    for number, colour in cells:
        if number in (least, max(numbers)) and least < max(numbers):
            expected = "#440154" if number == least else "#fde725"
            check(colour == expected, f"{section}: the colour of {number} is {colour}, not {expected}")


# ---- how it looks ----

# A picture is empty where it has no shape of its own size; words are clipped where they leave it.
LOOK = """[...document.querySelectorAll('svg.picture')].map(svg => {
    const box = svg.getBoundingClientRect(), inside = b => b.left >= box.left - 1 && b.right <= box.right + 1 &&
        b.top >= box.top - 1 && b.bottom <= box.bottom + 1;
    const shapes = [...svg.querySelectorAll('path:not(.grid), rect:not(.frame)')];
    const fills = new Set(shapes.map(shape => getComputedStyle(shape).fill));
    const clipped = [...svg.querySelectorAll('text, path, rect')].filter(x => !inside(x.getBoundingClientRect()));
    const size = Math.min(...[...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect().height));
    return {section: svg.closest('section').id, shapes: shapes.length, titled: svg.querySelectorAll('title').length,
            fills: fills.size, clipped: clipped.map(x => x.outerHTML.slice(0, 90)), width: box.width, height: box.height,
            letters: size}})"""

# The least contrast of words with what is behind them (WCAG 2), where that is one colour.
CONTRAST = """(() => {
    const light = c => {const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => (v /= 255, v <= 0.04045 ? v / 12.92 :
        ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b};
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const behind = at => {for (; at; at = at.parentElement) {const c = getComputedStyle(at).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)') return c} return 'rgb(255, 255, 255)'};
    let least = [99, ''];
    for (const at of document.querySelectorAll('h1,h2,h3,p,th,td,summary,nav a,svg text,.text span,.legend span')) {
        const style = getComputedStyle(at), of = ratio(at instanceof SVGElement ? style.fill : style.color, behind(at));
        if (of < least[0]) least = [of, at.outerHTML.slice(0, 80)]}
    for (const at of document.querySelectorAll('.text .u1,.text .u2,.text .u3')) {
        const of = ratio(getComputedStyle(at).borderBottomColor, behind(at.parentElement));
        if (of < least[0]) least = [of, 'the line below ' + at.outerHTML.slice(0, 80)]}
    return least})()"""


def check_look(page, what, traces):
    check(not page.complaints(), f"{what}: the browser complains:", page.complaints())
    if what != "on paper":  # where tables that are open must not widen the page
        page.ask("document.querySelectorAll('details').forEach(table => {table.open = true})")
    width, room = page.ask("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(width <= room, f"{what}: the page is {width} wide in a window of {room}")
    pictures = page.ask(LOOK)
    drawn = sum(is_there(section, trace) for section in SECTIONS if section != "text" for trace in traces)
    check(len(pictures) == drawn, f"{what}: {len(pictures)} pictures, not {drawn}")
    for picture in pictures:
        name = f"{what}: picture of {picture['section']}"
        check(picture["shapes"] > 0 and picture["titled"] > 0, f"{name} is empty")
        check(picture["width"] > 300 and picture["height"] > 60, f"{name} is {picture['width']} x {picture['height']}")
        check(not picture["clipped"], f"{name}: clipped:", picture["clipped"][:3])
        check(picture["letters"] > 10, f"{name}: letters of {picture['letters']} pixels")
    broken = page.ask("""[...document.querySelectorAll('.summary th')].filter(name => {const words = document.createRange();
        words.selectNodeContents(name); return words.getClientRects().length > 1 && !name.textContent.includes(' ')}).map(
        name => name.textContent)""")
    check(not broken, f"{what}: names of the summary broken within a word:", broken)
    contrast, where = page.ask(CONTRAST)
    check(contrast >= 4.4, f"{what}: words with a contrast of {contrast:.2f}: {where}")


# ---- what scripts add ----

def check_hover(page):
    """Pointing at a cell shows its number."""
    x, y, title = page.ask("""(() => {const cell = document.querySelector('#load .cells path');
        cell.scrollIntoView({block: 'center'}); const box = cell.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2, cell.querySelector('title').textContent]})()""")
    shown = None
    for step in range(50):  # the page may still be scrolling, which hides it
        page.point(x + step % 2, y)
        shown = page.ask("document.getElementById('hover').hidden ? null : document.getElementById('hover').textContent")
        if shown:
            break
        time.sleep(0.1)
    check(shown == title and "rows" in title, f"pointing at '{title}' shows '{shown}'")
    page.point(1, 1)
    check(page.ask("document.getElementById('hover').hidden"), "what was pointed at stays")


def check_choice(page, run, trace):
    """Choosing a layer colours the text by that layer's experts."""
    if not is_there("text", trace):
        return
    order = np.lexsort((trace["position"][...], trace["sequence"][...]))
    at = f"document.querySelectorAll('#text .run')[{run}]"
    for place in reversed(range(len(trace["layer"]))):
        page.ask(f"""(() => {{const select = {at}.querySelector('select'); select.selectedIndex = {place};
                     select.dispatchEvent(new Event('change'))}})()""")
        expected = trace["expert_indices"][place, :, 0][order]
        found = table(page, "text", run)[:, -1]
        check(np.array_equal(found, expected), f"text of trace {run}, layer {place}: experts {found}, not {expected}")
        spans = page.ask(f"""[...{at}.querySelectorAll('[data-at]')].map(span => [span.className,
            getComputedStyle(span).backgroundColor, span.dataset.hover])""")
        layer = trace["layer"][place]
        for (name, colour, hover), expert in zip(spans, expected):
            check(name == f"x{expert % 8} u{expert // 8 % 4}" and hover.endswith(f"layer {layer}, expert {expert}")
                  and colour != "rgba(0, 0, 0, 0)", f"text, layer {layer}, expert {expert}: {name}, {colour}, {hover}")


def check_text(page, run, trace):
    """Read together the coloured tokens are the prompt; nothing in it is taken for markup."""
    order = np.lexsort((trace["position"][...], trace["sequence"][...]))
    prompt = trace["token_ids"][...][order].astype("u1").tobytes().decode("utf-8", "replace").replace("\n", "↵")
    shown = page.ask(f"""[...document.querySelectorAll('#text .run')[{run}].querySelectorAll('[data-at]')].map(
        span => span.textContent).join('').replaceAll('·', '')""")
    if " --prompt" in trace.attrs["command_line"] and is_there("text", trace) and "\ufffd" not in prompt:
        check(shown == prompt.replace("\t", "⇥"), f"text of trace {run} is {shown!r}, not {prompt!r}")


def check_summary(page, traces):
    """What came from the files stands there as it was, and is no markup."""
    rows = page.ask("""Object.fromEntries([...document.querySelectorAll('.summary tr')].map(row => [row.cells[0].textContent,
        [...row.cells].slice(1).map(cell => cell.textContent)]))""")
    check(rows["command"] == [trace.attrs["command_line"] for trace in traces], "command:", rows["command"])
    check(rows["trace"] == [trace.path for trace in traces], "trace:", rows["trace"])
    check(rows["ranks"][0] == str(traces[0].attrs["num_ranks"]), "ranks:", rows["ranks"])
    title = page.ask("document.title")
    check(title == " and ".join(trace.path for trace in traces) + " – Expertmesh", "title:", title)


def check_page(browser, html, layer, traces):
    """In two widths, light and dark, with and without scripts: all must look right. Numbers are read with scripts and without."""
    for width in (1280, 400):
        for dark in (False, True):
            for scripts in (True, False):
                what = f"{html}, {width} pixels, {'dark' if dark else 'light'}, {'with' if scripts else 'without'} scripts"
                page = browser.open(html, width=width, dark=dark, scripts=scripts)
                check_look(page, what, traces)
                if scripts and dark == (width < 1280):  # for people to look at
                    page.screenshot(f"{html.removesuffix('.html')}-{width}.png")
                if width == 1280 and scripts != dark:
                    check_numbers(page, what, scripts, layer, traces)
                page.close()
    page = browser.open(html, width=718, dark=True, paper=True)  # A4 with margins of 10 mm
    check_look(page, "on paper", traces)
    page.close()


def check_numbers(page, what, scripts, layer, traces):
    check_summary(page, traces)
    for run, trace in enumerate(traces):
        for section in SECTIONS:
            check_section(page, section, run, trace, layer)
        check_text(page, run, trace)
    for section in ("load", "pairs", "exchange", "neurons"):
        check_ramp(page, section)
    hidden = page.ask("[...document.querySelectorAll('.choice')].every(choice => choice.hidden)")
    check(hidden != scripts or not any(is_there("text", trace) for trace in traces),
          f"{what}: the choice of a layer is {'hidden' if hidden else 'shown'}")
    if scripts:
        check_hover(page)
        for run, trace in enumerate(traces):
            check_choice(page, run, trace)


def main(chromium, pages):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Browser(chromium, folder) as browser, \
            open(pages, encoding="utf-8") as lines:
        for line in lines:
            html, layer, *paths = line.rstrip("\n").split("\t")
            before = len(wrong)
            check_page(browser, html, int(layer) if layer else None, [Trace(path) for path in paths])
            wrong[before:] = [f"{html}: {words}" for words in wrong[before:]]


main(*sys.argv[1:])
print("\n".join(wrong[:20]), end="\n" if wrong else "")
sys.exit(1 if wrong else 0)
