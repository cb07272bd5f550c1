"""inspected.py LIST: what `expertmesh inspect` printed, against the same figures computed from the datasets.

Each line of LIST is one answer, its words between tabs: how it was asked for, then
    experts JSON TRACE TOP    exchange JSON TRACE    neurons JSON TRACE TOP    token JSON TRACE NUMBER TOP
    neuron JSON WEIGHTS MATRIX LAYER EXPERT ROW TOP [TRACE TOKEN]
    exported FILE TRACE counts|routing csv|json
    csv CSV JSON TABLE                     the same rows in both
    narrow JSON ALL TABLE LAYER EXPERT     of ALL the rows of one layer and expert

Prints what is wrong; nothing when all is well.
"""
import collections
import csv
import json
import math
import sys

import h5py
import numpy as np

wrong = []


def check(good, *words):
    if not good:
        wrong.append(" ".join(str(word) for word in words))


def same(what, found, expected, tolerance=1e-6):
    """Numbers; nothing where there is nothing to tell."""
    if expected is None or (isinstance(expected, float) and not math.isfinite(expected)):
        check(found is None, f"{what} is {found}, not absent")
    elif isinstance(expected, str):
        check(found == expected, f"{what} is {found!r}, not {expected!r}")
    else:
        check(found is not None and abs(found - expected) <= tolerance * max(abs(expected), 1e-30),
              f"{what} is {found}, not {expected}")


def compare(name, found, columns, expected, tolerance=1e-6):
    """A whole table: rows, names and order of columns, every number."""
    check(len(found) == len(expected), f"{name}: {len(found)} rows, not {len(expected)}")
    for i, (row, values) in enumerate(zip(found, expected)):
        check(list(row) == columns.split(), f"{name}: columns are {list(row)}")
        for column, value in zip(columns.split(), values):
            same(f"{name}, row {i}, {column}", row.get(column), value, tolerance)


def text(token):
    return chr(token) if 32 <= token < 127 else None


class Trace:
    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.config = json.loads(self.file.attrs["config_json"])
        self.layers = self.file["layer"][...]
        self.tokens = self.file["token"][...]
        self.complete = bool(self.file.attrs["complete"])
        self.done, self.step, self.whole = (int(self.file[name][()]) for name in ("tokens_done", "step_tokens", "layers_done"))

    def count(self, at):
        """Tokens that are whole in a layer."""
        return self.done + (self.step if at < self.whole else 0)

    def __call__(self, name, at=None):
        """What is whole of a quantity in a layer, or outside of the layers."""
        data = self.file[name]
        return data[at, : self.count(at)] if at is not None else data[: self.count(len(self.layers))]

    def has(self, name):
        return name in self.file


# ---- experts ----

def balance(load):
    load = np.asarray(load, "f8")
    total, count = load.sum(), len(load)
    if total == 0:
        return [0, 0, 0, 0.0, None, None, None, count]
    share = load[load > 0] / total
    even = -(share * np.log(share)).sum() / np.log(count) if count > 1 else 1.0
    return [total, load.max(), int(load.argmax()), load.mean(), load.max() / load.mean(), load.std() / load.mean(), even,
            int((load == 0).sum())]


FIGURES = "rows most most_at mean over_mean variation evenness unused"


def experts(tables, trace, top):
    c, t = trace.config, trace.file
    E = c["num_experts"]
    expected, loads, ranks, rank_loads, pairs, values = [], [], [], [], [], []
    for at, layer in enumerate(trace.layers):
        load = t["expert_load"][at]
        router = [None, None]
        if trace.has("router_probs"):
            p = trace("router_probs", at).astype("f8")
            entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)
            router = [entropy.mean() / np.log(E), p.max(axis=1).mean()]
        expected.append([layer] + balance(load) + router)
        loads += [[layer, e, load[e], load[e] / load.sum()] for e in range(E)]
        rows = t["dispatch_rows"][at].sum(axis=0)
        ranks.append([layer] + balance(rows))
        rank_loads += [[layer, r, rows[r], rows[r] / rows.sum()] for r in range(len(rows))]
        if not trace.has("expert_indices"):
            continue
        chosen, ids = trace("expert_indices", at), t["token_ids"][: trace.count(at)]
        alone = [(chosen == e).any(axis=1).sum() for e in range(E)]
        for e in range(E):
            for f in range(e + 1, E):
                both = ((chosen == e).any(axis=1) & (chosen == f).any(axis=1)).sum()
                if both:
                    pairs.append([layer, e, f, both, both / len(chosen), both * len(chosen) / (alone[e] * alone[f])])
        for e in range(E):
            count = collections.Counter(int(ids[i]) for i in range(len(chosen)) if e in chosen[i])
            best = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:top]
            values += [[layer, e, value, text(value), n] for value, n in best]
    compare("balance", tables["balance"], "layer " + FIGURES + " router_entropy best_probability", expected)
    compare("loads", tables["loads"], "layer expert rows share", loads)
    compare("ranks", tables["ranks"], "layer " + FIGURES, ranks)
    compare("rank_loads", tables["rank_loads"], "layer rank rows share", rank_loads)
    if trace.has("expert_indices"):
        compare("pairs", tables["pairs"], "layer expert other tokens share lift", pairs)
        compare("values", tables["values"], "layer expert token_id text tokens", values)
    else:
        check("pairs" not in tables and "values" not in tables, "tables of what was not recorded")


# ---- exchange ----

KINDS = {"gather": "transfer", "sum": "transfer", "dispatch": "transfer", "combine": "transfer", "wait": "wait", "trace": "trace"}


def exchange(tables, trace):
    t, width = trace.file, 4 * trace.config["emb_size"]
    rows = t["dispatch_rows"][...]
    P = rows.shape[1]
    away = rows.sum(axis=(1, 2)) - np.trace(rows, axis1=1, axis2=2)
    layers = []
    for at, layer in enumerate(trace.layers):
        b = balance(rows[at].sum(axis=0))
        layers.append([layer, b[0], away[at], away[at] * width, b[1], b[2], b[4]])
    compare("layers", tables["layers"], "layer rows rows_away bytes_away most most_at over_mean", layers)
    compare("pairs", tables["pairs"], "source_rank rank rows bytes",
            [[i, j, rows[:, i, j].sum(), rows[:, i, j].sum() * width] for i in range(P) for j in range(P)])
    compare("rows", tables["rows"], "layer source_rank rank rows bytes",
            [[layer, i, j, rows[at, i, j], rows[at, i, j] * width]
             for at, layer in enumerate(trace.layers) for i in range(P) for j in range(P)])
    if not trace.complete:
        check(not {"phases", "moved", "ranks", "layer_phases"} & set(tables), "what is written at the end")
        return
    phases = [word.decode() for word in t["phase"][...]]
    moved = [t[f"exchange_{what}"][...].sum(axis=(0, 1)) + t[f"outer_exchange_{what}"][...].sum(axis=0)
             for what in ("rows", "bytes")]  # of each phase, inside hosts and between them
    compare("moved", tables["moved"], "phase rows_inside bytes_inside rows_between bytes_between",
            [[phase, *line] for phase, *line in zip(phases, *(part[:, reach] for reach in (0, 1) for part in moved))
             if line[0] + line[2] > 0])
    kinds = [KINDS.get(phase, "compute") for phase in phases]
    every = np.concatenate([t["phase_seconds"][...], t["outer_seconds"][...][None]])  # layer, rank, phase

    def lines(seconds):
        return [[phase, kind, s.min(), s.mean(), s.max(), int(s.argmax())]
                for phase, kind, s in zip(phases, kinds, seconds.T) if s.max() > 0]
    compare("phases", tables["phases"], "phase kind min mean max slowest", lines(every.sum(axis=0)))
    numbers = [int(n) for n in trace.layers] + [None]
    compare("layer_phases", tables["layer_phases"], "layer phase kind min mean max slowest",
            [[number] + line for number, seconds in zip(numbers, every) for line in lines(seconds)])
    by_rank = []
    for r in range(P):
        s = every[:, r].sum(axis=0)
        by_rank.append([r] + [sum(x for x, k in zip(s, kinds) if k == kind) for kind in ("compute", "transfer", "wait", "trace")]
                       + [s.sum()])
    compare("ranks", tables["ranks"], "rank compute transfer wait trace total", by_rank)


# ---- neurons ----

def neurons(tables, trace, top):
    E, F = trace.config["num_experts"], trace.config["ffn_size"]
    activity, best, dead = [], [], []
    for at, layer in enumerate(trace.layers):
        hidden, chosen = trace("ffn_hidden", at).astype("f8"), trace("expert_indices", at)
        for e in range(E):
            token, choice = np.nonzero(chosen == e)
            x = hidden[token, choice]
            if len(x) == 0:
                activity.append([layer, e, 0] + 4 * [None] + [0])
                continue
            active = np.abs(x) > 0.01 * np.sqrt((x * x).mean(axis=1, keepdims=True))
            largest = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], 0)[0]
            activity.append([layer, e, len(x), np.abs(x).mean(), np.sqrt((x * x).mean()), x.ravel()[np.abs(x).argmax()],
                             1 - active.mean(), int((~active.any(axis=0)).sum())])
            for n in np.argsort(-np.abs(x).mean(axis=0), kind="stable")[:top]:
                where = np.abs(x[:, n]).argmax()
                best.append([layer, e, n, np.abs(x[:, n]).mean(), largest[n], trace.tokens[token[where]], active[:, n].mean()])
            dead += [[layer, e, n] for n in range(F) if not active[:, n].any()]
    compare("activity", tables["activity"], "layer expert tokens mean_size rms largest sparsity dead", activity)
    compare("top", tables["top"], "layer expert neuron mean_size largest largest_token active", best)
    compare("dead", tables["dead"], "layer expert neuron", dead)


# ---- a token ----

def token(tables, trace, number, top):
    t, place = trace.file, int(np.searchsorted(trace.tokens, number))
    check(trace.tokens[place] == number, "no such token in the trace")
    ids = int(t["token_ids"][place])
    compare("token", tables["token"], "token token_id text sequence position",
            [[number, ids, text(ids), t["sequence"][place], t["position"][place]]])
    S = trace.config["num_selected_experts"]
    norms = ["resid_pre", "attn_out", "resid_mid", "ffn_out", "resid_post"]
    path = []
    for at, layer in enumerate(trace.layers):
        if place >= trace.count(at):
            break
        line = [layer]
        for i in range(S):
            line.append(t["expert_indices"][at, place, i] if trace.has("expert_indices") else None)
            line.append(t["expert_weights"][at, place, i] if trace.has("expert_weights") else None)
        line += [np.linalg.norm(t[name][at, place].astype("f8")) if trace.has(name) else None for name in norms]
        path.append(line)
    columns = " ".join(f"expert_{i} weight_{i}" for i in range(S))
    compare("path", tables["path"], "layer " + columns + " " + " ".join(norms), path)
    if trace.has("logits") and place < trace.count(len(trace.layers)):
        scores = t["logits"][place].astype("f8")
        probability = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        order = np.argsort(-scores, kind="stable")[:top]
        compare("next", tables["next"], "token_id text logit probability",
                [[v, text(v), scores[v], probability[v]] for v in order])
    else:
        check("next" not in tables, "next tokens that were not recorded")


# ---- a neuron ----

class Weights:
    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.config = dict(self.file["config"].attrs)

    def __call__(self, layer, name, *index):
        path = f"/layers/{layer:03d}/{name}"
        rows = self.file[path][index]
        if self.file[path].dtype == np.int8:
            scale = self.file[path + "_scale"][index]
            rows = rows.astype("f4") * np.repeat(scale, rows.shape[-1] // scale.shape[-1], axis=-1)
        return rows.astype("f8")

    def storage(self, layer, name):
        return {1: "int8", 2: "bf16", 4: "f32"}[self.file[f"/layers/{layer:03d}/{name}"].id.get_type().get_size()]


def numbers(name, storage, x, bias=None):
    return [name, storage, len(x), x.mean(), x.std(), np.linalg.norm(x), x.min(), int(x.argmin()), x.max(), int(x.argmax()), bias]


def gelu(x, form):
    if "GELU by erf" in form:
        return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rms_norm(x, scale, eps):
    return x / np.sqrt((x * x).mean() + eps) * scale


def value_of(weights, trace, matrix, layer, expert, row, number):
    """Inputs, their name, and lines of what, computed, recorded (None: nothing to compare with)."""
    c, t = weights.config, trace.file
    at, place = int(np.searchsorted(trace.layers, layer)), int(np.searchsorted(trace.tokens, number))

    def get(name):
        return t[name][at, place].astype("f8")

    def dot(name, *index):
        return weights(layer, name, *index) @ x
    mlp, eps, form = c["ffn_kind"] == "mlp", c["rms_norm_eps"], t.attrs.get("numerics", "")
    if matrix in ("ffn_up", "ffn_gate"):
        x, chosen = get("ffn_in"), list(t["expert_indices"][at, place])
        recorded = get("ffn_hidden")[chosen.index(expert), row] if expert in chosen else None
        up = dot("ffn_up", expert, row)
        if not mlp:
            gate = dot("ffn_gate", expert, row)
            return x, "ffn_in", [("weighted sum of ffn_gate: pre-activation", gate, None), ("activation", gelu(gate, form), None),
                                 ("weighted sum of ffn_up", up, None), ("output: ffn_hidden", gelu(gate, form) * up, recorded)]
        bias = float(weights(layer, "ffn_up_bias", expert, row))
        return x, "ffn_in", [("weighted sum", up, None), ("bias", bias, None), ("pre-activation", up + bias, None),
                             ("output: ffn_hidden", gelu(up + bias, form), recorded)]
    if matrix == "ffn_down":
        chosen, y = list(t["expert_indices"][at, place]), np.zeros(c["emb_size"])
        x = get("ffn_hidden")[chosen.index(expert)]
        sum_, bias = dot("ffn_down", expert, row), float(weights(layer, "ffn_down_bias", expert, row)) if mlp else 0
        for i, e in enumerate(chosen):
            out = weights(layer, "ffn_down", e) @ get("ffn_hidden")[i]
            y += get("expert_weights")[i] * (out + (weights(layer, "ffn_down_bias", e) if mlp else 0))
        lines = [("weighted sum", sum_, None)] + ([("bias", bias, None)] if mlp else [])
        return x, "ffn_hidden", lines + [
            ("output of the expert", sum_ + bias, None), ("chosen experts, weighed and added", y[row], None),
            ("after the norm: ffn_out", rms_norm(y, weights(layer, "ffn_norm_post"), eps)[row], get("ffn_out")[row])]
    if matrix == "router":
        x = get("ffn_in")
        logits = weights(layer, "router") @ x
        first = [("weighted sum", logits[row], None)] if "soft-capped" in form else []
        if first:
            cap = float(form.split("soft-capped at ")[1].split(";")[0])
            logits = cap * np.tanh(logits / cap)
        return x, "ffn_in", first + [
            ("soft-capped: router_logits" if first else "weighted sum: router_logits", logits[row], get("router_logits")[row]),
            ("softmax over all experts: router_probs", np.exp(logits[row]) / np.exp(logits).sum(), get("router_probs")[row])]
    if matrix == "attn_output":
        x = get("attn_z").ravel()
        y = weights(layer, "attn_output") @ x
        scale = c["attn_output_multiplier"] if "output times" in form else 1
        return x, "attn_z", [("weighted sum", y[row], None), ("after the norm: attn_out",
                              rms_norm(scale * y, weights(layer, "attn_norm_post"), eps)[row], get("attn_out")[row])]
    x = rms_norm(get("resid_pre"), weights(layer, "attn_norm_pre"), eps).astype("f4").astype("f8")
    head, i = divmod(row, c["key_size"])
    if matrix == "attn_value":
        return x, "resid_pre, normed,", [("weighted sum: attn_v", dot("attn_value", row), get("attn_v")[head, i])]
    half, quantity = c["key_size"] // 2, "attn_q" if matrix == "attn_query" else "attn_k"
    partner = row + half if i < half else row - half
    angle = float(t["position"][place]) * c["rope_base"] ** (-(i % half) / half)
    mine, other = dot(matrix, row), dot(matrix, partner)
    turned = mine * np.cos(angle) + (-1 if i < half else 1) * other * np.sin(angle)
    return x, "resid_pre, normed,", [("weighted sum", mine, None), ("weighted sum of its partner in RoPE", other, None),
                                     ("after RoPE: " + quantity, turned, get(quantity)[head, i])]


def neuron(tables, weights, matrix, layer, expert, row, top, trace=None, number=None):
    c = weights.config
    mlp, first = c["ffn_kind"] == "mlp", matrix in ("ffn_up", "ffn_gate")
    of_expert = matrix.startswith("ffn")
    names = ["ffn_gate", "ffn_up"] if first and not mlp else [matrix]
    index = (expert, row) if of_expert else (row,)
    inside = f"[{expert}, {row}, :]" if of_expert else f"[{row}, :]"
    bias = float(weights(layer, "ffn_up_bias" if first else "ffn_down_bias", expert, row)) if of_expert and mlp else None
    rows = {name: weights(layer, name, *index) for name in names}
    vectors = [numbers(name + inside, weights.storage(layer, name), w, bias) for name, w in rows.items()]
    if first:
        column = weights(layer, "ffn_down", expert)[:, row]
        vectors.append(numbers(f"ffn_down[{expert}, :, {row}]", weights.storage(layer, "ffn_down"), column))
    if trace:
        x, name, lines = value_of(weights, trace, matrix, layer, expert, row, number)
        vectors.append(numbers(f"{name} of token {number}", "f32", x))
    # inputs that were normed here differ by a rounding to float32
    compare("vectors", tables["vectors"], "vector storage length mean spread norm smallest at largest largest_at bias", vectors, 1e-5)
    compare("largest", tables["largest"], "matrix input weight",
            [[name, i, w[i]] for name, w in rows.items() for i in np.argsort(-np.abs(w.astype("f4")), kind="stable")[:top]])
    if not trace:
        check("value" not in tables and "terms" not in tables, "a value without a trace")
        return
    found = tables["value"]
    check([row["what"] for row in found] == [line[0] for line in lines], "value: lines are", [row["what"] for row in found])
    for row, (what, computed, recorded) in zip(found, lines):
        check(list(row) == "what computed recorded difference relative".split(), "value: columns are", list(row))
        same(f"value, {what}: computed", row["computed"], computed, 1e-5)
        same(f"value, {what}: recorded", row["recorded"], recorded)
        if recorded is None:
            check(row["difference"] is None and row["relative"] is None, what, "is compared with nothing")
        else:
            check(abs(row["difference"] - (row["computed"] - row["recorded"])) < 1e-7 * max(1, abs(recorded)), what, "difference", row)
            check(abs(computed - recorded) <= 2e-5 * max(abs(recorded), 0.1), f"{what}: {computed} was recorded as {recorded}")
    for name, w in rows.items():
        part = [row for row in tables["terms"] if row["matrix"] == name]
        products = w * x
        check(len(part) == min(top, len(x)), f"terms of {name}: {len(part)}")
        sizes = np.sort(np.abs(products))[::-1]
        for i, row in enumerate(part):
            at = int(row["input"])
            for column, value in (("weight", w[at]), ("value", x[at]), ("product", products[at])):
                same(f"terms of {name}, input {at}, {column}", row[column], value, 1e-5)
            same(f"terms of {name}: size of term {i}", abs(row["product"]), sizes[i], 1e-5)
        check(len({row["input"] for row in part}) == len(part), f"terms of {name}: one is there twice")


# ---- exports ----

ROUTING = "layer token choice expert weight token_id sequence position".split()


def exported(path, trace, kind, form):
    t = trace.file
    with open(path, newline="") as file:
        found = json.load(file) if form == "json" else list(csv.reader(file))
    if kind == "counts":
        load = t["expert_load"][...].tolist()
        if form == "json":
            expected = {"logical_count": load, "layers": trace.layers.tolist()}
        else:
            expected = [["layer"] + [f"expert_{e}" for e in range(len(load[0]))]]
            expected += [[str(n) for n in [layer] + row] for layer, row in zip(trace.layers, load)]
        check(found == expected, f"{found}, not {expected}")
        return
    expected = []
    for at, layer in enumerate(trace.layers):
        for i in range(trace.count(at)):
            for choice, expert in enumerate(t["expert_indices"][at, i]):
                weight = t["expert_weights"][at, i, choice] if trace.has("expert_weights") else None
                expected.append([layer, trace.tokens[i], choice, expert, weight, t["token_ids"][i], t["sequence"][i], t["position"][i]])
    if form == "csv":
        check(found[0] == ROUTING, "columns are", found[0])
        found = [dict(zip(ROUTING, (float(text_) if text_ else None for text_ in row))) for row in found[1:]]
    compare("routing", found, " ".join(ROUTING), expected, 1e-8)


# ---- the same as CSV ----

def same_csv(path, tables, name):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    check(len(rows) == len(tables[name]), f"csv: {len(rows)} rows, {len(tables[name])} in json")
    for a, b in zip(rows, tables[name]):
        check(list(a) == list(b), "csv: columns are", list(a), "in json", list(b))
        for column in a:
            text_, value = a[column], b[column]
            check(text_ == "" if value in (None, "") else text_ == value if isinstance(value, str) else float(text_) == value,
                  f"csv: {column} is {text_!r}, in json {value!r}")


def narrow(tables, everything, name, layer, expert):
    kept = [row for row in everything[name] if row["layer"] == layer and row.get("expert", expert) == expert]
    check(tables[name] == kept, f"{name}: {tables[name]}, not {kept}")


def examine(kind, path, *rest):
    if kind == "exported":
        return exported(path, Trace(rest[0]), *rest[1:])
    if kind == "csv":
        return same_csv(path, json.load(open(rest[0])), rest[1])
    with open(path) as file:
        tables = json.load(file)
    if kind == "neuron":
        weights, matrix, layer, expert, row, top = rest[:6]
        more = (Trace(rest[6]), int(rest[7])) if len(rest) > 6 else ()
        return neuron(tables, Weights(weights), matrix, int(layer), int(expert), int(row), int(top), *more)
    if kind == "narrow":
        return narrow(tables, json.load(open(rest[0])), rest[1], int(rest[2]), int(rest[3]))
    of_traces = {"experts": experts, "exchange": exchange, "neurons": neurons, "token": token}
    return of_traces[kind](tables, Trace(rest[0]), *(int(word) for word in rest[1:]))


failed = 0
for line in open(sys.argv[1]):
    wrong = []
    asked, *words = line.rstrip("\n").split("\t")
    try:
        examine(*words)
    except Exception as error:  # an answer that cannot even be read
        wrong.append(f"{type(error).__name__}: {error}")
    for text_ in wrong[:4]:
        print(f"{asked}: {text_}")
    failed += bool(wrong)
sys.exit(failed > 0)
