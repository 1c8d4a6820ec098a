// Shows a text token by token, coloured by surprise. Pointing at a token lists its alternatives; clicking it shows
// the attention from it. The page needs elements #text, #name, #detail, #layer and #head. A token has text, part, name
// and, except for the first one, bits and best.
const at = id => document.getElementById(id);
const layerMenu = at("layer"), headMenu = at("head");
let tokens = [], spans = [], chosen = -1, attention = null, bytes = null, offsets = [];

function add(token, isPrompt) {
  const i = tokens.length, span = document.createElement("span");
  span.textContent = token.text;
  span.tabIndex = 0;
  span.classList.toggle("prompt", isPrompt);
  span.classList.toggle("part", token.part);
  span.classList.toggle("newline", token.text.includes("\n"));
  span.addEventListener("mouseenter", () => { if (chosen < 0) detail(i); });
  span.addEventListener("focus", () => { if (chosen < 0) detail(i); });
  span.addEventListener("click", () => choose(i));
  span.addEventListener("keydown", event => { if (event.key === "Enter") choose(i); });
  tokens.push(token);
  spans.push(span);
  at("text").append(span);
  span.style.background = surprise(token);
}

function surprise(token) {
  return token.bits == null ? "transparent" : `rgba(var(--hot), ${Math.min(1, token.bits / 8) * .8})`;
}

function cell(row, className, content) {
  const td = row.insertCell();
  td.className = className;
  if (content instanceof Node) td.append(content); else td.textContent = content;
}

function detail(i) {
  const token = tokens[i], table = document.createElement("table");
  at("name").textContent = token.name;
  at("detail").replaceChildren();
  if (token.bits == null) { at("detail").append("The first token: nothing comes before it."); return; }
  at("detail").append(`${(100 * 2 ** -token.bits).toPrecision(3)}% likely, ${token.bits.toFixed(2)} bits of surprise`, table);
  for (const [name, probability, same] of token.best) {
    const row = table.insertRow(), bar = document.createElement("div");
    if (same) row.className = "it";
    bar.style.width = `${100 * probability}%`;
    cell(row, "name", name); cell(row, "number", `${(100 * probability).toFixed(1)}%`); cell(row, "bar", bar);
  }
}

function looked(i) {  // the attention from token i to each earlier one, averaged as the menus say
  const length = i - attention.starts[i], sums = new Array(length).fill(0);
  const pick = (menu, count) => menu.value === "all" ? [...Array(count).keys()] : [Number(menu.value)];
  const layers = pick(layerMenu, attention.layers), heads = pick(headMenu, attention.heads);
  for (const l of layers) for (const h of heads) {
    const row = offsets[i] + (l * attention.heads + h) * length;
    for (let j = 0; j < length; j++) sums[j] += (bytes[row + j] / 255) ** 2;
  }
  return sums.map(sum => sum / (layers.length * heads.length));
}

function paint() {
  const weights = chosen > 0 && attention && attention.layers ? looked(chosen) : null;
  const largest = weights ? Math.max(...weights) : 1, start = weights ? attention.starts[chosen] : 0;
  spans.forEach((span, i) => {
    span.classList.toggle("chosen", i === chosen);
    const weight = weights && i >= start && i < chosen ? weights[i - start] : 0;
    span.style.background = weights ? `rgba(var(--look), ${.85 * weight / largest})` : surprise(tokens[i]);
    if (weights && i < chosen) span.title = i < start ? "beyond the context" : `looked at: ${(100 * weight).toFixed(1)}%`;
    else span.removeAttribute("title");
  });
}

function choose(i) {
  chosen = i === chosen ? -1 : i;
  if (chosen >= 0) detail(chosen);
  paint();
}

function takeAttention(found) {
  attention = found;
  bytes = Uint8Array.from(atob(found.data), c => c.charCodeAt(0));
  let offset = 0;
  offsets = found.starts.map((start, i) => {
    const here = offset;
    if (i > 0) offset += found.layers * found.heads * (i - start);
    return here;
  });
  for (const [menu, count] of [[layerMenu, found.layers], [headMenu, found.heads]]) {
    const before = menu.value;
    menu.replaceChildren(new Option("all, averaged", "all"));
    for (let i = 0; i < count; i++) menu.append(new Option(i + 1, i));
    if ([...menu.options].some(option => option.value === before)) menu.value = before;
  }
  paint();
}

for (const menu of [layerMenu, headMenu]) {
  menu.append(new Option("all, averaged", "all"));
  menu.addEventListener("change", paint);
}
document.addEventListener("keydown", event => { if (event.key === "Escape") choose(-1); });
