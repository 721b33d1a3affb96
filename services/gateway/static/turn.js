// One question with its answer: chips while it is made, a draft, the checked text, the trace.

import { element, markdown } from "./markdown.js";

const SVG = "http://www.w3.org/2000/svg";
const THUMB =
  "M7 10v10H4a1 1 0 0 1-1-1v-8a1 1 0 0 1 1-1h3Zm2 0 4-7c1.7 0 2.6 1.3 2.3 2.9L14.7 9H19a2 2 0 0 1 2 2.3l-1.2 7A2 2 0 0 1 17.8 20H9V10Z";
const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export class Turn {
  constructor(question, page) {
    this.page = page;
    this.draft = "";
    this.given = [];
    this.chips = element("ul", { class: "chips", "aria-hidden": "true" });
    this.label = element("p", { class: "draft-label" }, page.text().working);
    this.body = element("div", { class: "answer", "aria-busy": "true" });
    this.rest = element("div", { class: "rest" });
    this.node = element(
      "li",
      { class: "turn" },
      element("h2", { class: "asked" }, question),
      this.chips,
      this.label,
      this.body,
      this.rest,
    );
  }

  stage({ stage, status, ms }) {
    const words = this.page.text();
    this.chips.append(
      element(
        "li",
        { class: `chip ${status}` },
        words.stages[stage] ?? stage,
        element("span", {}, ` ${duration(ms)}`),
      ),
    );
  }

  sources(sources) {
    this.given = sources;
    this.rest.replaceChildren(this.#sourceList(sources, null));
  }

  token(piece) {
    this.label.textContent = this.page.text().draft;
    this.draft += piece;
    this.body.classList.add("draft");
    this.body.replaceChildren(markdown(this.draft));
  }

  answer(answer) {
    const words = this.page.text();
    this.label.remove();
    this.chips.remove();
    this.body.classList.remove("draft");
    this.body.removeAttribute("aria-busy");
    this.body.lang = answer.language;
    const cited = new Map(answer.citations.map((item) => [item.number, item]));
    this.body.replaceChildren(
      markdown(answer.answer, (number) => {
        const citation = cited.get(number);
        return citation ? this.#marker(citation, answer) : null;
      }),
    );
    this.rest.replaceChildren(
      ...this.#notices(answer, words),
      ...(answer.suggestion ? [this.#suggestion(answer.suggestion, words)] : []),
      ...(answer.citations.length ? [this.#sourceList(answer.citations, answer)] : []),
      this.#actions(answer, words),
      this.#trace(answer, words),
    );
  }

  fail(message, question) {
    this.label.remove();
    this.body.removeAttribute("aria-busy");
    this.body.classList.remove("draft");
    const again = element("button", { type: "button", class: "quiet" }, this.page.text().again);
    again.addEventListener("click", () => this.page.ask(question));
    this.body.replaceChildren(element("p", { class: "notice bad", role: "alert" }, message), again);
    this.rest.replaceChildren();
  }

  #marker(citation, answer) {
    const words = this.page.text();
    const button = element(
      "button",
      {
        type: "button",
        class: "citation",
        "aria-label": words.openSource(citation.number, citation.title),
      },
      `[${citation.number}]`,
    );
    button.addEventListener("click", () =>
      this.page.openPassage(citation, answer?.id, answer?.language),
    );
    return button;
  }

  #sourceList(sources, answer) {
    const words = this.page.text();
    const items = sources.map((source) => {
      const title = source.heading ? `${source.title} — ${source.heading}` : source.title;
      const button = element("button", { type: "button", class: "source" }, title || source.id);
      button.addEventListener("click", () =>
        this.page.openPassage(source, answer?.id, answer?.language),
      );
      return element("li", { value: source.number }, button);
    });
    return element(
      "section",
      { class: "sources" },
      element("h3", {}, words.sources),
      element("ol", {}, ...items),
    );
  }

  #notices(answer, words) {
    const texts = [];
    if (words.kinds[answer.kind]) texts.push(words.kinds[answer.kind]);
    const gone = answer.degraded.map((name) => words.gone[name] ?? words.goneOther(name));
    texts.push(...new Set(gone));
    if (!texts.length) return [];
    return [element("div", { class: "notice" }, ...texts.map((line) => element("p", {}, line)))];
  }

  #suggestion(suggestion, words) {
    const button = element("button", { type: "button", class: "link" }, suggestion);
    button.addEventListener("click", () => this.page.ask(suggestion));
    return element("p", { class: "suggestion" }, `${words.didYouMean} `, button);
  }

  #actions(answer, words) {
    const said = element("span", { class: "said", role: "status" });
    const copy = element("button", { type: "button", class: "quiet" }, words.copy);
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(answer.answer);
      copy.textContent = words.copied;
      this.page.feedback({ request_id: answer.id, kind: "answer_copied" });
    });
    const comment = element("form", { class: "comment", hidden: true });
    const vote = (value, label) => {
      const button = element(
        "button",
        { type: "button", class: "vote", "aria-label": label, title: label, "aria-pressed": "false" },
        thumb(value),
      );
      button.addEventListener("click", async () => {
        for (const other of box.querySelectorAll(".vote")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        this.#askWhy(comment, value, answer, said);
        const outcome = await this.page.feedback({
          request_id: answer.id,
          kind: "thumbs",
          value,
          question: answer.question,
        });
        said.textContent = this.#outcome(outcome);
      });
      return button;
    };
    const box = element(
      "div",
      { class: "actions" },
      copy,
      vote(1, words.good),
      vote(-1, words.bad),
      said,
    );
    return element("div", {}, box, comment);
  }

  #askWhy(form, value, answer, said) {
    const words = this.page.text();
    const id = `why-${answer.id}`;
    const area = element("textarea", { id, rows: "2", maxlength: "4000" });
    form.hidden = false;
    form.replaceChildren(
      element("label", { for: id }, value < 0 ? words.tellMore : words.whatWasGood),
      area,
      element("button", { type: "submit" }, words.send),
    );
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      const outcome = await this.page.feedback({
        request_id: answer.id,
        kind: "comment",
        comment: area.value.trim(),
        question: answer.question,
      });
      said.textContent = this.#outcome(outcome);
      if (outcome !== "failed") form.hidden = true;
    };
  }

  #outcome(outcome) {
    const words = this.page.text();
    return { stored: words.thanks, queued: words.kept, failed: words.notSaved }[outcome];
  }

  #trace(answer, words) {
    const total = Math.max(1, ...answer.timings.map((item) => item.start_ms + item.ms));
    const rows = answer.timings.map((item) => {
      const bar = document.createElementNS(SVG, "svg");
      bar.setAttribute("viewBox", "0 0 100 8");
      bar.setAttribute("preserveAspectRatio", "none");
      bar.setAttribute("aria-hidden", "true");
      const box = document.createElementNS(SVG, "rect");
      box.setAttribute("class", item.status);
      box.setAttribute("x", String((item.start_ms / total) * 100));
      box.setAttribute("width", String(Math.max(0.6, (item.ms / total) * 100)));
      box.setAttribute("height", "8");
      bar.append(box);
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, words.stages[item.stage] ?? item.stage),
        element("td", { class: "bar" }, bar),
        element("td", { class: "ms" }, duration(item.ms)),
        element("td", {}, words.states[item.status] ?? item.status),
      );
    });
    const head = [words.stage, words.from, words.time, words.state];
    const details = element("details", { class: "trace" });
    details.append(
      element("summary", {}, words.trace(duration(total))),
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, ...rows),
      ),
    );
    if (answer.groundedness !== null && answer.kind === "generated") {
      const share = `${Math.round(answer.groundedness * 100)}%`;
      details.append(element("p", {}, words.grounded(share)));
    }
    details.append(element("p", { class: "id" }, `x-request-id: ${answer.id}`));
    return details;
  }
}

/** A thumb, up for 1 and down for -1, in the colour of the text. */
function thumb(value) {
  const icon = document.createElementNS(SVG, "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", THUMB);
  if (value < 0) path.setAttribute("transform", "rotate(180 12 12)");
  icon.append(path);
  return icon;
}
