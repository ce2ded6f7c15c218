import type { Client } from 'pg'
import { openSession } from './postgres-session.ts'

/**
 * A session with a transaction that it does not end, as a forgotten one or a long report would be: with a number of its
 * own and a snapshot, for which the server has to keep every row that anybody deletes meanwhile.
 */
export class Holder {
  #client: Client | undefined

  async hold({ url }: { url: string }): Promise<void> {
    const client = await openSession(url)
    this.#client = client
    await client.query('CREATE TABLE bench_report (line text)')
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    await client.query("INSERT INTO bench_report VALUES ('held')")
    await client.query('SELECT count(*) FROM bench_report')
  }

  /** Makes sure that the transaction is still held, and ends it. */
  async release(): Promise<void> {
    const { rows } = await this.#client!.query('SELECT line FROM bench_report')
    await this.#client!.query('ROLLBACK')
    await this.#client!.end()
    if (rows.length !== 1) throw new Error('The transaction was not held.')
  }
}
