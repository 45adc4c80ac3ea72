"use strict";
(() => {
  const TOP = {{ top }}, IS_TARGET = 0x8000, NOTHING = 0x7fff, PER_PAGE = 10;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const unpack = (text) => new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const kinds = unpack(data.kind), ranks = data.ranks.map(unpack), answers = unpack(data.answers);
  const total = kinds.length, shown = data.queries.length;
  const state = { first: data.pair[0], second: data.pair[1], depth: TOP, kind: -1, outcome: "", words: "", every: false, page: 1 };

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  // A table that goes on to the right fades out there and says so.
  for (const table of document.querySelectorAll(".scroll")) {
    table.before(element("p", { className: "more-hint", textContent: "more columns to the right →" }));
    const update = () => table.classList.toggle("more", table.scrollLeft + table.clientWidth < table.scrollWidth - 1);
    table.addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(table);
  }
  const button = (label, pressed, click) => {
    const made = element("button", { type: "button", onclick: click }, ...label);
    made.setAttribute("aria-pressed", String(pressed));
    return made;
  };
  const number = (value) => value.toLocaleString("en");

  const hit = (method, query) => ranks[method][query] > 0 && ranks[method][query] <= state.depth;
  const outcomes = () => {
    if (state.second < 0) return [["hit", "Hits"], ["miss", "Misses"]];
    const [first, second] = [state.first, state.second].map((method) => data.methods[method].label);
    return [["both", "Both hit"], ["first", `Only ${first}`], ["second", `Only ${second}`], ["neither", "Both miss"]];
  };
  const outcome = (query) => {
    const first = hit(state.first, query);
    if (state.second < 0) return first ? "hit" : "miss";
    const second = hit(state.second, query);
    return first ? (second ? "both" : "first") : second ? "second" : "neither";
  };

  const drawBars = () => {
    const counts = [...data.kinds, "All kinds"].map(() => ({}));
    for (let query = 0; query < total; query++)
      for (const row of [kinds[query], data.kinds.length]) counts[row][outcome(query)] = (counts[row][outcome(query)] || 0) + 1;
    const row = (kind, label, count) => {
      const all = Object.values(count).reduce((sum, value) => sum + value, 0);
      const stack = element("div", { className: "stack" });
      stack.setAttribute("aria-hidden", "true");
      for (const [name, text] of outcomes()) {
        const share = (100 * (count[name] || 0)) / all;
        if (!share) continue;
        const title = `${label}, ${text}: ${number(count[name])} of ${number(all)} (${share.toFixed(1)}%)`;
        const dim = state.outcome && state.outcome !== name ? " dim" : "";
        const part = element("i", { className: `o-${name}${dim}`, title }, share >= 7 ? `${Math.round(share)}%` : "");
        part.style.flex = `${share} 0 0`;
        part.onclick = () => update({ kind, outcome: name });
        stack.append(part);
      }
      return element("div", { className: "bar-row" }, button([label], state.kind === kind, () => update({ kind })), stack,
        element("span", { className: "n" }, number(all)));
    };
    byId("bars").replaceChildren(row(-1, "All kinds", counts[data.kinds.length]), ...data.kinds.map((label, kind) => row(kind, label, counts[kind])));
    byId("outcomes").replaceChildren(
      button(["Any outcome"], !state.outcome, () => update({ outcome: "" })),
      ...outcomes().map(([name, text]) => button(
        [element("span", { className: `dot o-${name}` }), text], state.outcome === name, () => update({ outcome: state.outcome === name ? "" : name }),
      )),
    );
    byId("depth").replaceChildren(...[1, 5, 10].map((depth) => button([`Top ${depth}`], state.depth === depth, () => update({ depth }))));
  };

  const picture = (index, role, extra) => {
    const [name, webp] = data.pictures[index];
    return element("img", { className: `pic ${extra}`, src: `data:image/webp;base64,${webp}`, alt: `${role}${name}`, title: `${role}${name}`, decoding: "async" });
  };
  const answerRow = (query, method) => {
    const rank = ranks[method][query], good = hit(method, query);
    const strip = element("div", { className: "strip" });
    const start = (query * data.methods.length + method) * TOP;
    for (const entry of answers.subarray(start, start + TOP))
      if ((entry & NOTHING) !== NOTHING) strip.append(picture(entry & NOTHING, entry & IS_TARGET ? "target " : "", entry & IS_TARGET ? "target" : ""));
    const place = element("span", { className: good ? "hit" : "", title: "rank of the first target" }, rank ? `#${rank}` : `> ${data.listed}`);
    const chosen = method === state.first || method === state.second ? "featured" : "";
    const row = element("div", { className: "answer" },
      element("div", { className: "who" }, element("b", { className: chosen }, data.methods[method].label), place), strip);
    row.dataset.method = data.methods[method].key;
    return row;
  };
  const card = (query) => {
    const [reference, text, description, targets, more] = data.queries[query];
    const ask = element("div", { className: "ask" },
      element("div", { className: "pair" }, picture(reference, "reference ", "reference"),
        element("div", {}, element("p", { className: "tag" }, data.kinds[kinds[query]]), element("p", { className: "says" }, text))));
    if (description) ask.append(element("p", { className: "described" }, element("b", {}, "Inferred description"), description));
    const wanted = element("div", { className: "answer wanted" },
      element("div", { className: "who" }, element("b", {}, targets.length > 1 ? "Targets" : "Target"), element("span", {}, more ? `and ${more} more` : "")),
      element("div", { className: "strip" }, ...targets.map((index) => picture(index, "target ", "target"))));
    const methods = data.methods.map((_, method) => method)
      .filter((method) => state.every || method === state.first || method === state.second);
    const made = element("article", { className: "query" }, ask, element("div", {}, wanted, ...methods.map((method) => answerRow(query, method))));
    made.dataset.outcome = outcome(query);
    made.dataset.kind = kinds[query];
    return made;
  };

  const drawList = () => {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (query) => (state.kind < 0 || kinds[query] === state.kind) && (!state.outcome || outcome(query) === state.outcome)
      && words.every((word) => data.queries[query][1].toLowerCase().includes(word));
    const found = [];
    for (let query = 0; query < shown; query++) if (fits(query)) found.push(query);
    const visible = found.slice(0, state.page * PER_PAGE);
    byId("list").replaceChildren(...visible.map(card));
    if (!found.length) byId("list").append(element("p", { className: "none" }, "No query fits. Choose another kind or outcome."));
    byId("count").textContent = `${number(found.length)} of ${number(shown)} queries`;
    byId("more").hidden = visible.length === found.length;
  };

  const update = (changes) => {
    const focused = document.activeElement?.closest("#bars, #outcomes, #depth");
    const position = focused ? [...focused.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    Object.assign(state, { page: 1 }, changes);
    if (state.second === state.first) state.second = -1;
    if (!outcomes().some(([name]) => name === state.outcome)) state.outcome = "";
    byId("first").value = state.first;
    byId("second").value = state.second;
    drawBars();
    drawList();
    if (position >= 0) focused.querySelectorAll("button")[position]?.focus({ preventScroll: true });  // it was drawn anew
  };

  const options = () => data.methods.map(({ label }, method) => element("option", { value: method }, label));
  byId("first").append(...options());
  byId("second").append(element("option", { value: -1 }, "no other"), ...options());
  byId("first").onchange = (event) => update({ first: Number(event.target.value) });
  byId("second").onchange = (event) => update({ second: Number(event.target.value) });
  byId("words").oninput = (event) => { Object.assign(state, { words: event.target.value, page: 1 }); drawList(); };
  byId("every").onchange = (event) => { state.every = event.target.checked; drawList(); };
  byId("more").onclick = () => { state.page += 1; drawList(); };
  byId("scope").textContent = shown === total
    ? "All of them are here with their first answers, in mixed order."
    : `The first ${number(shown)} of ${number(total)} in a mixed order are here with their first answers.`;
  byId("explorer").hidden = false;
  update({});
})();
