#include "style.h"

#include "charts.h"

/* Light and dark by what the reader's system asks for; paper is light. */
static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1b1b;--faint:#5a5a5a;--rule:#c9c9c9;--soft:#f2f2f2}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e8e8e8;--faint:#b0b0b0;--rule:#4a4d52;"
    "--soft:#22252a}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:0 16px 48px;max-width:1280px;background:var(--paper);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif;overflow-wrap:anywhere}\n"
    "h1{font-size:1.5em;margin:.8em 0 .2em}h2{font-size:1.15em;margin:0 0 .2em}"
    "h3{font-size:1em;margin:.8em 0 .3em;color:var(--faint);font-weight:600}\n"
    "a{color:inherit}nav{margin:.4em 0 1em;color:var(--faint)}nav a{margin-right:1em;white-space:nowrap;"
    "display:inline-block;padding:.2em 0}\n"
    "p{margin:.3em 0 .6em}p.what,p.note{color:var(--faint)}p.note{font-size:.9em}\n"
    "p.missing{border:1px dashed var(--rule);padding:12px;color:var(--faint)}\n"
    "main{display:grid;grid-template-columns:minmax(0,1fr);gap:36px 32px}\n"
    "section{min-width:0;break-inside:avoid}\n"
    ".runs{display:grid;grid-template-columns:minmax(0,1fr);gap:16px 32px}\n"
    ".run{min-width:0;break-inside:avoid}\n"
    "@media (min-width:900px){main.one{grid-template-columns:repeat(2,minmax(0,1fr))}main.one .wide{grid-column:1/-1}"
    ".two .runs{grid-template-columns:repeat(2,minmax(0,1fr))}}\n"
    "svg.picture{display:block;width:100%;max-width:520px;height:auto;margin:.4em 0}\n"
    "svg text{fill:var(--ink);font-size:11px}\n"
    ".grid{stroke:var(--rule);stroke-width:1;fill:none}.frame{stroke:var(--faint);stroke-width:1;fill:none;"
    "pointer-events:none}\n"
    ".line{fill:none;stroke-width:1.8}.band{fill-opacity:.22;stroke:none}"
    ".hollow{fill:var(--paper);stroke:var(--faint);stroke-width:1}\n"
    "svg.defs{position:absolute}svg.sample{width:14px;height:14px;vertical-align:-2px}svg.wide{width:34px}\n"
    ".legend{font-size:.9em}.legend span{display:inline-block;margin-right:.9em}\n"
    "details{margin:.3em 0}summary{cursor:pointer;color:var(--faint);padding:.25em 0}\n"
    ".scroll{overflow:auto;max-height:26em}\n"
    "table{border-collapse:collapse;font-size:.85em;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:2px 8px;text-align:right;border-bottom:1px solid var(--rule);overflow-wrap:normal}"
    "tr>:first-child{text-align:left}thead th{text-align:right;vertical-align:bottom;background:var(--soft);"
    "position:sticky;top:0}\n"
    "table.summary td,table.summary th{text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "table.summary{font-size:.92em;width:100%;table-layout:fixed}table.summary th{width:30%;font-weight:600}"
    ".two table.summary th{width:22%}@media (max-width:600px){table.summary th{width:7em!important}}table.summary "
    ".differs td{background:var(--soft);font-weight:600}\n"
    ".text{font:14px/1.9 ui-monospace,\"DejaVu Sans "
    "Mono\",monospace;white-space:pre-wrap;max-height:32em;overflow:auto;"
    "border:1px solid var(--rule);padding:8px}\n"
    ".text span,.legend .token{padding:1px 0;border-bottom:3px none var(--ink)}.legend .token{padding:1px 6px}\n"
    ".text .gap{color:var(--faint)}\n"
    ".u1{border-bottom-style:solid!important}.u2{border-bottom-style:dotted!important}"
    ".u3{border-bottom-style:double!important}\n"
    "select{font:inherit;color:inherit;background:var(--soft);border:1px solid var(--rule);padding:2px 6px}\n"
    "#hover{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--paper);padding:3px 8px;"
    "border-radius:3px;font-size:13px;max-width:300px}\n"
    "[hidden]{display:none!important}\n"
    "@media (hover:hover){.cells path:hover,svg rect:hover{stroke:var(--ink);stroke-width:1.5}}\n"
    "@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--faint:#333;--rule:#aaa;--soft:#eee}"
    "body{font-size:10pt;max-width:none;padding:0;-webkit-print-color-adjust:exact;print-color-adjust:exact}"
    "nav,#hover,.choice,details:not([open]){display:none}.scroll,.text{max-height:none;overflow:visible}"
    "svg.picture{max-width:390px}main{gap:20px 24px}main.one{grid-template-columns:repeat(2,minmax(0,1fr))}"
    "main.one .wide{grid-column:1/-1}.two .runs{grid-template-columns:repeat(2,minmax(0,1fr))}}\n";

/* Numbers at once where one points or taps, instead of after a while; and a choice of the layer that colours the text. */
static const char script[] =
    "'use strict';\n"
    "const hover=document.getElementById('hover');\n"
    "function words(at){const t=at.querySelector&&at.querySelector(':scope>title');"
    "return t?t.textContent:at.dataset?at.dataset.hover||'':''}\n"
    "for(const at of document.querySelectorAll('.text "
    "[title]')){at.dataset.hover=at.title;at.removeAttribute('title')}\n"
    "function show(event){const at=event.target,text=at.closest&&at.closest('svg.picture,.text')?words(at):'';\n"
    " hover.hidden=!text;if(!text)return;hover.textContent=text;\n"
    " const room=hover.getBoundingClientRect(),x=event.clientX+14,y=event.clientY+18;\n"
    " hover.style.left=Math.max(4,Math.min(x,innerWidth-room.width-4))+'px';\n"
    " hover.style.top=(y+room.height>innerHeight?event.clientY-room.height-10:y)+'px'}\n"
    "document.addEventListener('pointermove',show);document.addEventListener('pointerdown',show);\n"
    "document.addEventListener('scroll',()=>{hover.hidden=true},true);\n"
    "function colour(run,place){const "
    "data=JSON.parse(run.querySelector('script').textContent),codes=data.experts[place];\n"
    " const spans=run.querySelectorAll('.text [data-at]'),rows=run.querySelectorAll('tbody tr'),wide=data.digits;\n"
    " for(const span of spans){const i=+span.dataset.at,code=codes.substr(i*wide,wide);\n"
    "  const expert=code[0]==='.'?-1:parseInt(code,36),last=rows[i].lastElementChild;\n"
    "  span.className=expert<0?'':'x'+expert%8+' u'+(expert>>3)%4;\n"
    "  last.textContent=expert<0?'\\u2013':expert;\n"
    "  span.dataset.hover=span.dataset.hover.replace(/: layer.*/,'')+"
    "(expert<0?'':': layer '+data.layers[place]+', expert '+expert)}\n"
    " run.querySelector('.layer').textContent=data.layers[place];\n"
    " run.querySelector('thead th:last-child').textContent='expert in layer '+data.layers[place]}\n"
    "for(const run of document.querySelectorAll('.coloured')){const choice=run.querySelector('.choice'),\n"
    " select=choice.querySelector('select');choice.hidden=false;\n"
    " select.addEventListener('change',()=>colour(run,select.selectedIndex))}\n";

void em_style_put(em_page *page)
{
    em_page_put(page, "<style>\n%s", style);
    for (int c = 0; c < EM_NUM_COLOURS; c++)
        em_page_put(page, ".x%d{background:%s;color:%s}", c, em_colours[c], em_colour_is_dark[c] ? "#fff" : "#000");
    em_page_put(page, "\n</style>\n");
}

void em_script_put(em_page *page)
{
    em_page_put(page, "<div id=\"hover\" hidden></div>\n<script>\n%s</script>\n", script);
}
