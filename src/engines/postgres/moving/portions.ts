/** A statement's arrays are in memory several times over. */
const ROWS_MAX = 1_000
const CHARACTERS_MAX = 4 * 2 ** 20

/** Rows in lists of a size that a statement can take. */
export function* portions<Row extends object>(rows: Iterable<Row>): Generator<Row[]> {
  let portion: Row[] = []
  let characters = 0
  for (const row of rows) {
    portion.push(row)
    characters += charactersIn(row)
    if (portion.length < ROWS_MAX && characters < CHARACTERS_MAX) continue
    yield portion
    portion = []
    characters = 0
  }
  if (portion.length > 0) yield portion
}

function charactersIn(row: object): number {
  let characters = 0
  for (const value of Object.values(row)) if (typeof value === 'string') characters += value.length
  return characters
}

/** Of rows of equal length, what stands in each column. */
export function columnsOf(rows: readonly (readonly unknown[])[]): unknown[][] {
  return (rows[0] ?? []).map((_, column) => rows.map((row) => row[column]))
}
