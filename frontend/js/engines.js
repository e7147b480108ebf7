// @ts-check
/**
 * What the server's engines allow: is a conversation possible, what is missing, what should a user
 * know? Pure; the answers of `/api/engines` and `/api/voices` are passed in.
 */

/**
 * @typedef {"asr" | "llm" | "tts" | "upstream"} Kind
 * @typedef {object} Engine
 * @property {Kind} kind
 * @property {string} name  as "faster-whisper, base.en, on the CPU"
 * @property {string} problem  why it does not work, and what to type; empty: it works
 * @property {string} note  what a user should know of it
 * @property {boolean} ready  it has started
 *
 * @typedef {object} ChatState
 * @property {boolean} known  the server tells of its engines
 * @property {boolean} ready  the avatar can answer
 * @property {boolean} hears  it understands speech; else messages can be typed
 * @property {string[]} problems  a sentence each
 * @property {string[]} notes
 * @property {boolean} upstream  another server can talk instead
 * @property {boolean} starting  an engine is still being loaded: ask again
 *
 * @typedef {{id: string, name: string, language: string}} VoiceChoice
 */

/** @type {Record<Kind, string>} */
const WHAT = { asr: "Speech recognition", llm: "The language model", tts: "The voice", upstream: "The upstream" };

/**
 * @param {unknown} answer  of `/api/engines`; null: there is none
 * @returns {ChatState}
 */
export function chatState(answer) {
  const engines = enginesIn(answer);
  const broken = (/** @type {Kind} */ kind) => {
    const own = engines.filter((engine) => engine.kind === kind);
    return own.length > 0 && own.every(({ problem }) => problem);
  };
  const known = engines.some(({ kind }) => kind === "llm");
  const upstream = engines.some(({ kind }) => kind === "upstream");
  const faulty = engines.filter(
    ({ kind, problem }) => problem && broken(kind) && (kind === "upstream" || !upstream),
  );
  return {
    known,
    ready: known && !broken("llm") && !broken("tts"),
    hears: known && !broken("asr"),
    problems: faulty.map(({ kind, problem }) =>
      problem.startsWith(WHAT[kind]) ? problem : `${WHAT[kind]}: ${problem}`,
    ),
    upstream,
    notes: engines.filter(({ note, problem }) => note && !problem).map(({ note }) => note),
    starting: engines.some(({ problem, ready }) => !problem && !ready),
  };
}

/**
 * @param {unknown} answer
 * @returns {Engine[]}
 */
function enginesIn(answer) {
  const engines = [];
  for (const item of listIn(answer, "engines")) {
    const { kind, name, problem, note, ready } = item;
    if (typeof kind !== "string" || !(kind in WHAT)) continue;
    engines.push({
      kind: /** @type {Kind} */ (kind),
      name: text(name),
      problem: text(problem),
      note: text(note),
      ready: ready !== false,
    });
  }
  return engines;
}

/**
 * The voices to choose from; none where there is no choice.
 * @param {unknown} answer  of `/api/voices`; null: there is none
 * @returns {VoiceChoice[]}
 */
export function voicesIn(answer) {
  /** @type {Map<string, VoiceChoice>} */
  const voices = new Map();
  for (const item of listIn(answer, "voices")) {
    const id = text(item.id) || text(item.name);
    if (!id || voices.has(id)) continue;
    voices.set(id, { id, name: text(item.label) || text(item.name) || id, language: text(item.language) });
  }
  return voices.size > 1 ? [...voices.values()] : [];
}

/**
 * @param {any} answer  a list, or an object with one
 * @param {string} key
 * @returns {Record<string, unknown>[]}
 */
function listIn(answer, key) {
  const list = Array.isArray(answer) ? answer : answer?.[key];
  if (!Array.isArray(list)) return [];
  return list.filter((item) => item !== null && typeof item === "object");
}

/** @param {unknown} value */
const text = (value) => (typeof value === "string" ? value : "");
