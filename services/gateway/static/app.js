// The page: asks, shows what streams in, opens citations, takes votes and documents.

import { Failure, call, events, onKeyNeeded, postJson } from "./client.js";
import { element, markdown } from "./markdown.js";
import { TEXTS } from "./texts.js";
import { Turn } from "./turn.js";
import { watchUploads } from "./upload.js";

const by = (id) => document.getElementById(id);
const turns = by("turns");
const question = by("question");

let language = localStorage.getItem("language");
if (!(language in TEXTS)) language = navigator.language.toLowerCase().startsWith("pt") ? "pt" : "en";
let conversation = null;
let running = null; // the AbortController of the answer that streams in
const asked = new Map(); // question as typed → id of its answer

const text = () => TEXTS[language];

// -- words of the page ----------------------------------------------------------------------

function showLanguage() {
  const words = text();
  document.documentElement.lang = language;
  document.title = words.title;
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = words[node.dataset.text];
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", words[node.dataset.label]);
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  by("examples").replaceChildren(
    ...words.exampleQuestions.map((example) => {
      const button = element("button", { type: "button", class: "example" }, example);
      button.addEventListener("click", () => ask(example));
      return element("li", {}, button);
    }),
  );
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    language = button.dataset.language;
    localStorage.setItem("language", language);
    showLanguage();
  });
}

const announce = (message) => {
  by("status").textContent = message;
};

// -- asking ---------------------------------------------------------------------------------

async function ask(typed) {
  const words = typed.trim();
  if (!words || running) return;
  running = new AbortController();
  setBusy(true);
  question.value = "";
  grow();
  by("start").hidden = true;
  by("new").hidden = false;
  const turn = new Turn(words, { text, feedback, openPassage, ask });
  turns.append(turn.node);
  turn.node.scrollIntoView({ block: "start", behavior: "smooth" });
  announce(text().working);
  const before = asked.get(words.toLowerCase());
  if (before) feedback({ request_id: before, kind: "question_reasked", question: words });
  try {
    const body = { question: words, stream: true };
    if (conversation) body.conversation_id = conversation;
    const response = await postJson("/v1/answer", body, { signal: running.signal });
    let complete = false;
    for await (const { name, data } of events(response)) {
      if (name === "stage") turn.stage(data);
      else if (name === "sources") turn.sources(data.sources);
      else if (name === "token") turn.token(data.text);
      else if (name === "error") throw new Failure(data.detail || data.title, data.status);
      else if (name === "answer") {
        complete = true;
        conversation = data.conversation_id;
        asked.set(words.toLowerCase(), data.id);
        turn.answer(data);
        announce(text().ready);
      }
    }
    if (!complete) throw new Failure(text().cut);
  } catch (error) {
    const message = sentence(error);
    turn.fail(message, words);
    announce(message);
  } finally {
    running = null;
    setBusy(false);
  }
}

function sentence(error) {
  if (error.name === "AbortError") return text().stopped;
  if (error instanceof Failure) return error.message;
  return error instanceof TypeError ? text().unreachable : text().cut;
}

function setBusy(busy) {
  by("send").hidden = busy;
  by("stop").hidden = !busy;
  by("ask").setAttribute("aria-busy", String(busy));
}

function grow() {
  question.rows = Math.min(5, Math.max(1, question.value.split("\n").length));
}

by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(question.value);
});
question.addEventListener("input", grow);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    by("ask").requestSubmit();
  }
});
by("stop").addEventListener("click", () => {
  running?.abort();
  question.focus();
});
by("new").addEventListener("click", () => {
  running?.abort();
  conversation = null;
  asked.clear();
  turns.replaceChildren();
  by("start").hidden = false;
  by("new").hidden = true;
  question.focus();
});

// -- citations, votes -------------------------------------------------------------------------

function openPassage(citation, requestId, answerLanguage) {
  const dialog = by("passage");
  dialog.lang = citation.language || answerLanguage || language;
  dialog.querySelector(".where").textContent = `[${citation.number}] ${citation.id}`;
  dialog.querySelector("h2").textContent = citation.title || citation.document;
  dialog.querySelector(".heading").textContent = citation.heading;
  dialog.querySelector(".text").replaceChildren(markdown(citation.text));
  dialog.showModal();
  if (requestId) feedback({ request_id: requestId, kind: "citation_opened", value: citation.id });
}

/** Resolves to "stored", "queued" or "failed"; a lost vote never disturbs the reading. */
async function feedback(body) {
  try {
    const response = await postJson("/v1/feedback", body, {
      headers: { "idempotency-key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` },
    });
    return response.status === 202 ? "queued" : "stored";
  } catch {
    return "failed";
  }
}

// -- the key ----------------------------------------------------------------------------------

onKeyNeeded(
  () =>
    new Promise((resolve) => {
      const dialog = by("key");
      by("key-value").value = "";
      dialog.returnValue = "";
      dialog.showModal();
      dialog.addEventListener(
        "close",
        () => resolve(dialog.returnValue === "ok" ? by("key-value").value.trim() : null),
        { once: true },
      );
    }),
);

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close("");
  });
}

watchUploads(by("upload-form"), by("uploads"), { text, call, events });
showLanguage();
