// Elements. Names and messages are others' input: they only ever become text.

const $ = id => document.getElementById(id);

// el makes an element: el('p.dim', {title: 'why'}, 'text', child). Null children are left out.
function el(spec, ...rest) {
  const [tag, ...classes] = spec.split('.');
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(' ');
  for (const item of rest) append(node, item);
  return node;
}

function append(node, item) {
  if (item == null || item === false) return;
  if (Array.isArray(item)) item.forEach(x => append(node, x));
  else if (typeof item === 'object' && !(item instanceof Node)) for (const [k, v] of Object.entries(item)) { if (v != null) node.setAttribute(k, v); }
  else node.append(item);
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes || {})) node.setAttribute(k, v);
  node.append(...children);
  return node;
}

// text and attribute change the document only if there is a difference.
function text(node, value) {
  if (node._text !== value) { node._text = value; node.textContent = value; }
}
function className(node, value) {
  if (node._class !== value) { node._class = value; node.setAttribute('class', value); }
}
function attribute(node, name, value) {
  if (value == null) { if (node.hasAttribute(name)) node.removeAttribute(name); }
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// replace replaces the children of a node when what they show has changed.
function replace(node, shows, make) {
  const key = JSON.stringify(shows);
  if (node._shows === key) return;
  node._shows = key;
  node.replaceChildren(...[make()].flat());
}

const mark = level => el('span.mark' + (level ? '.' + level : ''), {'aria-hidden': 'true'});
const chevron = () => svg('svg', {class: 'chevron', viewBox: '0 0 16 16', 'aria-hidden': 'true'}, svg('path', {d: 'M4 6l4 4 4-4'}));

// highlighted returns text with the searched words marked.
function highlighted(value, words) {
  const lower = value.toLowerCase(), parts = [];
  let at = 0;
  while (at < value.length) {
    let first = -1, length = 0;
    for (const word of words) {
      const n = lower.indexOf(word, at);
      if (n >= 0 && (first < 0 || n < first || n === first && word.length > length)) { first = n; length = word.length; }
    }
    if (first < 0) break;
    parts.push(value.slice(at, first), el('mark', value.slice(first, first + length)));
    at = first + length;
  }
  parts.push(value.slice(at));
  return parts;
}
