/**
 * Notices that a newer Posthorn has changed the tables so that this process can work with them no more. It is told of
 * that some seconds before they are changed, and looks now and then besides.
 */
import { PosthornError } from '../../../errors.ts'
import { MIGRATIONS, schema } from '../sql/migrations.ts'
import type { Database } from './database.ts'

/** Far more often than a deployment, and well within the time that a newer process leaves. */
const LOOK_EVERY_MS = 1_000

/** What is told when the version was written. */
export const SCHEMA_NOTICE = 'v'

export class SchemaWatch {
  readonly name = 'looking at the version of the tables'
  readonly everyMs = LOOK_EVERY_MS
  readonly #database: Database
  readonly #onTooNew: (error: PosthornError) => void

  /** `onTooNew` is called with POSTHORN_SCHEMA_TOO_NEW. */
  constructor(database: Database, onTooNew: (error: PosthornError) => void) {
    this.#database = database
    this.#onTooNew = onTooNew
  }

  async run(): Promise<void> {
    const [found] = await this.#database.rows<{ version: number; compatibleFrom: number }>(schema.version)
    const known = MIGRATIONS.length
    if (!found || found.compatibleFrom <= known) return
    const details = { store: this.#database.address.label, found: Math.max(found.version, found.compatibleFrom), known }
    this.#onTooNew(new PosthornError('POSTHORN_SCHEMA_TOO_NEW', details))
  }
}
