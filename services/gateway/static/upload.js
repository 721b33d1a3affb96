// Documents in: one line a file, with the progress of its job.

import { element } from "./markdown.js";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function watchUploads(form, list, tools) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    for (const file of form.elements.file.files) uploadOne(file, list, tools);
    form.reset();
  });
}

async function uploadOne(file, list, { text, call, events }) {
  const words = text();
  const bar = element("progress", { max: "1", "aria-label": words.progressOf(file.name) });
  const said = element("span", {}, words.jobs.sending);
  list.prepend(element("li", {}, element("strong", {}, file.name), " ", bar, " ", said));
  const show = (job) => {
    bar.value = job.progress;
    if (job.status === "done") said.textContent = words.jobs.done(job.passages);
    else if (job.status === "failed") said.textContent = words.jobs.failed(job.error);
    else said.textContent = job.error ?? words.jobs[job.status];
    return job.status === "done" || job.status === "failed";
  };
  try {
    const body = new FormData();
    body.append("file", file);
    const accepted = await (await call("/v1/documents", { method: "POST", body })).json();
    if (accepted.unchanged) {
      said.textContent = words.jobs.unchanged;
      bar.value = 1;
      return;
    }
    // The stream may end before the job does; then it is opened again.
    for (let finished = false; !finished; ) {
      const response = await call(`/v1/jobs/${accepted.job_id}/events`);
      for await (const { name, data } of events(response)) {
        if (name === "error") throw new Error(data.detail);
        finished = show(data);
      }
      if (!finished) await pause(500);
    }
  } catch (error) {
    said.textContent = words.jobs.failed(error.message);
  } finally {
    if (bar.value >= 1 || said.textContent) bar.hidden = bar.value >= 1;
  }
}
