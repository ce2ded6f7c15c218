/** The session of a source that is called `session/number`. */
export function sessionOf(source: string): string {
  return source.slice(0, source.lastIndexOf('/'))
}
