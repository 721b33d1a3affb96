// A small, safe part of Markdown as DOM nodes. Text becomes text nodes only, never HTML.

const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\[\d{1,3}\])/;

/** An element with `text`; children may follow. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Paragraphs, lists, code, bold and [n]; `cite(n)` makes the node for a citation, or null. */
export function markdown(text, cite = () => null) {
  const fragment = document.createDocumentFragment();
  const parts = text.replace(/\r\n?/g, "\n").split(/^```[^\n]*\n?/m);
  parts.forEach((part, index) => {
    if (index % 2) {
      if (part.trim()) fragment.append(element("pre", {}, element("code", {}, part.trimEnd())));
      return;
    }
    for (const block of part.split(/\n{2,}/)) appendBlock(fragment, block, cite);
  });
  return fragment;
}

function appendBlock(fragment, block, cite) {
  let list = null;
  let lines = [];
  const flush = () => {
    if (lines.length) fragment.append(inline(element("p"), lines.join("\n"), cite));
    lines = [];
  };
  for (const line of block.split("\n")) {
    const item = /^\s*(?:[-*+]|(\d{1,3})[.)])\s+(.*)$/.exec(line);
    if (item) {
      flush();
      const tag = item[1] ? "ol" : "ul";
      if (!list || list.tagName.toLowerCase() !== tag) {
        list = element(tag);
        fragment.append(list);
      }
      list.append(inline(element("li"), item[2], cite));
    } else if (line.trim()) {
      list = null;
      lines.push(line.replace(/^#{1,6}\s+/, ""));
    }
  }
  flush();
}

function inline(parent, text, cite) {
  let rest = text;
  for (let match; (match = INLINE.exec(rest)); ) {
    if (match.index) parent.append(rest.slice(0, match.index));
    const [found] = match;
    if (match[1]) parent.append(element("code", {}, found.slice(1, -1)));
    else if (match[2]) parent.append(inline(element("strong"), found.slice(2, -2), cite));
    else parent.append(cite(Number(found.slice(1, -1))) ?? found);
    rest = rest.slice(match.index + found.length);
  }
  parent.append(rest);
  return parent;
}
