/** A statement of the engine. `@.` stands for the schema that holds its tables. */
export interface Statement {
  /** Unique among the engine's statements: each connection prepares it under this name. */
  readonly name: string
  readonly text: string
}

/** Names the statements of an area: `{ insert: '...' }` of `topics` becomes one called `topics_insert`. */
export function statements<Name extends string>(
  area: string,
  texts: Readonly<Record<Name, string>>,
): Readonly<Record<Name, Statement>> {
  const named = Object.entries<string>(texts).map(([name, text]) => [name, { name: `${area}_${name}`, text }])
  return Object.fromEntries(named) as Record<Name, Statement>
}

/** Carries out statements: each by itself, or all within one transaction. */
export interface Queryable {
  /** The rows that it returns. */
  rows<Row>(statement: Statement, ...values: readonly unknown[]): Promise<Row[]>
  /** How many rows it has changed. */
  run(statement: Statement, ...values: readonly unknown[]): Promise<number>
}

/** A transaction that is open. */
export interface Transaction extends Queryable {
  /**
   * Sends a statement and does not wait for its answer, so that others, and the COMMIT, can follow at once. When it
   * fails, so does the transaction, with the same.
   */
  send(statement: Statement, ...values: readonly unknown[]): void
}
