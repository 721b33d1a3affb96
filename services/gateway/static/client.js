// Calls to the gateway: the key, problem documents, server-sent events.

let askForKey = async () => null;

/** `ask` shows the key dialog and resolves to a key, or null when the person cancels. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** A failed call. Its message is the sentence of the problem document. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** fetch with the key of this tab; asks for one on 401. Throws Failure on every other error. */
export async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem("api-key");
    const headers = new Headers(options.headers);
    if (key) headers.set("authorization", `Bearer ${key}`);
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401) {
      const given = await askForKey();
      if (given) {
        sessionStorage.setItem("api-key", given);
        continue;
      }
    }
    throw new Failure(problem.detail || `HTTP ${response.status}`, response.status);
  }
}

export function postJson(path, body, options = {}) {
  return call(path, {
    ...options,
    method: "POST",
    headers: { "content-type": "application/json", ...options.headers },
    body: JSON.stringify(body),
  });
}

/** Events of an answer as {name, data}; data is parsed JSON. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value;
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        let name = "message";
        const data = [];
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
        }
        if (data.length) yield { name, data: JSON.parse(data.join("\n")) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
