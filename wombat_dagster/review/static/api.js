// Talks to the server. Every answer is JSON; what is refused throws `Refused` with the words.

export class Refused extends Error {
  constructor(status, answer) {
    super(answer?.error ?? `the server answered ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { error: "wombat review does not answer: is it still running?" });
  }
  let answer = null;
  try { answer = await response.json(); } catch { /* no JSON: the status says enough */ }
  if (!response.ok || answer === null) throw new Refused(response.status, answer);
  return answer;
}

const of = (key) => `/api/observation/${encodeURIComponent(key)}`;

export const overview = () => ask("/api/list");
export const observation = (key, signal) => ask(of(key), { signal });
export const earlier = (key) => ask(`${of(key)}/earlier`);
export const chartAddress = (key, version) => `${of(key)}/chart.png?v=${encodeURIComponent(version ?? "")}`;
export const pictureAddress = (key, hash, version) =>
  `${of(key)}/thumbnail/${encodeURIComponent(hash)}.jpg?v=${encodeURIComponent(version ?? "")}`;

export const reports = () => ask("/api/reports");
export const reportAddress = (name) => `/api/reports/${encodeURIComponent(name)}`;

export const write = (address, value) => ask(address, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Wombat": "review" },
  body: JSON.stringify(value),
});
