// The dialog that writes what is approved into a report, and says what came of it.

import * as api from "/static/api.js";

export class ReportDialog {
  constructor({ dialog, body, button, make, many, approved, opening, done, tell }) {
    Object.assign(this, { dialog, body, button, make, many, approved, opening, done, tell });
    button.addEventListener("click", () => this.write());
    body.addEventListener("change", () => this.count());
    body.addEventListener("click", (event) => {
      const file = event.target.closest("[data-file]")?.dataset.file;
      if (file) this.submitted(file, event.target);
    });
  }

  async open() {
    const { make } = this;
    this.opening();
    const approved = this.approved();
    const words = approved.length
      ? "Approved, and not yet in a report. Every rule of the AAVSO is checked before a file is written; uploading it is yours."
      : "Nothing is approved that is not in a report yet.";
    const lines = approved.map((one) => make("li", {}, make("label", {},
      make("input", { type: "checkbox", value: one.key, checked: "" }),
      make("span", { text: `${one.target}  ${one.filter}  ${one.night}` }))));
    this.files = make("div");
    const again = make("label", { className: "again" }, make("input", { type: "checkbox", id: "amendments" }),
      make("span", { text: "Also what was reported before: new points, and amendments of lines that changed" }));
    this.body.replaceChildren(make("p", { text: words }), make("ul", {}, ...lines), again, this.files);
    this.button.hidden = false;
    this.count();
    this.dialog.showModal();
    if (!this.button.disabled) this.button.focus();
    await this.showFiles();
  }

  async showFiles() {
    const { make, many } = this;
    let found;
    try { found = await api.reports(); } catch { return; }
    const open = found.reports.filter((one) => one.n_submitted < one.n_lines);
    if (!open.length) return;
    this.files.replaceChildren(make("h2", { text: "Written, not yet uploaded" }), make("ul", {}, ...open.map((one) => make("li", { className: "row" },
      make("a", { href: api.reportAddress(one.file), download: one.file, className: "file", text: one.file }),
      make("span", { className: "quiet", text: many(one.n_lines, "line") }),
      make("button", { type: "button", "data-file": one.file, text: "I uploaded it" })))));
  }

  keys() {
    return [...this.body.querySelectorAll("input[value]:checked")].map((input) => input.value).filter((value) => value !== "on");
  }

  isAgain() {
    return this.body.querySelector("#amendments")?.checked ?? false;
  }

  count() {
    const n = this.keys().length;
    this.button.disabled = n === 0 && !this.isAgain();
    this.button.textContent = n ? `Write report of ${this.many(n, "observation")}` : "Write report";
  }

  async write() {
    this.button.disabled = true;
    let found;
    try { found = await api.write("/api/report", { keys: this.keys(), amendments: this.isAgain() }); } catch (error) {
      this.body.querySelector(".error")?.remove();
      this.body.prepend(this.make("p", { className: "error", text: error.message, role: "alert" }));
      this.button.disabled = false;
      return;
    }
    this.show(found);
    this.done();
  }

  show(found) {
    const { make, many } = this;
    this.button.hidden = true;
    const parts = [];
    for (const one of found.files) {
      parts.push(make("section", { className: "written" },
        make("p", {}, make("span", { className: "clean", text: `${many(one.n_lines, "line")} written${one.is_amended ? ", amendments" : ""}; no rule of the AAVSO is broken` })),
        make("p", { className: "row" },
          make("a", { href: api.reportAddress(one.file), download: one.file, className: "file", text: one.file }),
          make("button", { type: "button", "data-file": one.file, text: "I uploaded it" })),
        make("p", { className: "quiet", text: one.path }),
        ...one.warnings.map((text) => make("p", { className: "caution", text }))));
    }
    if (!found.files.length) parts.push(make("p", { text: "No file was written: there was nothing new to report." }));
    const lines = [];
    for (const one of found.observations) {
      const words = [];
      if (one.n_same) words.push(`${one.n_same} reported before`);
      if (one.n_at_aavso) words.push(`${one.n_at_aavso} at the AAVSO already`);
      if (one.n_amended) words.push(`${one.n_amended} changed since they were reported`);
      if (one.n_not_reported) words.push(`${many(one.n_not_reported, "point")} not reported`);
      if (words.length) lines.push(make("li", { text: `${one.key}: ${words.join(", ")}` }));
      for (const text of one.refused) lines.push(make("li", { className: "error", text: `${one.key}: ${text}` }));
      for (const text of [...one.gone, ...one.clashes]) lines.push(make("li", { className: "caution", text: `${one.key}: ${text}` }));
    }
    lines.push(...found.notes.map((text) => make("li", { className: "caution", text })));
    if (lines.length) parts.push(make("ul", { className: "outcome" }, ...lines));
    if (found.files.length) {
      parts.push(make("p", { className: "quiet" }, document.createTextNode("Upload it at "),
        make("a", { href: found.upload, target: "_blank", rel: "noopener noreferrer", text: "WebObs" }), document.createTextNode(", then say so here.")));
    }
    this.body.replaceChildren(...parts);
  }

  async submitted(file, button) {
    button.disabled = true;
    try { await api.write("/api/submitted", { file }); } catch (error) {
      button.disabled = false;
      this.tell(error.message, { bad: true });
      return;
    }
    button.textContent = "Uploaded";
    this.done();
  }
}
