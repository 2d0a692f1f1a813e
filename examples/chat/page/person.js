// Who sits in front of this tab: a name, and an id that tells two people of one name apart. Kept for
// as long as the tab, so that two tabs are two people and a reload is the same one.

const KEY = "person";

/** The person of this tab; `name` is empty before they have joined. */
export function person() {
  const kept = read();
  return { id: kept.id ?? randomId(), name: kept.name ?? "" };
}

/** Remembers the person for the next load of this tab. */
export function remember(person) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(person));
  } catch {
    // Storage is blocked: the next load asks for the name again.
  }
}

/** An id that nobody else has. (`crypto.randomUUID` is there on secure pages only.) */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A colour of the circle, the same for the same id everywhere. */
export function hue(id) {
  let hash = 0;
  for (const c of id) hash = (hash * 31 + c.codePointAt(0)) % 10_007;
  // Steps of the golden angle keep neighbours apart.
  return (hash * 137.508) % 360;
}

/** One or two letters that stand for a name. */
export function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const picked = words.length > 1 ? [words[0], words.at(-1)] : words;
  return picked.map((word) => [...word][0].toUpperCase()).join("") || "?";
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}
