/** What a text of Postgres cannot hold, NUL and halves of surrogate pairs; and what stands for them there. */
const UNSTORABLE = /[\0\\\p{Surrogate}]/gu
const ESCAPED = /\\u([0-9a-f]{4})/g
const HEX = 16
const DIGITS = 4

/** How a text of the user's (a key, an id, a name) is stored and looked up: nearly always as it is. */
export function toStoredText(text: string): string {
  return text.replace(UNSTORABLE, (one) => `\\u${one.charCodeAt(0).toString(HEX).padStart(DIGITS, '0')}`)
}

export function fromStoredText(stored: string): string {
  return stored.replace(ESCAPED, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, HEX)))
}
