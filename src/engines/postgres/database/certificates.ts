/**
 * The certificates that a URL names. `pg` would read their files whenever it connects, and throw where nobody catches it
 * when one is missing for a moment, as while it is renewed. So they are read when the engine is opened, and again when
 * connecting has failed, and kept when that cannot be.
 */
import pg from 'pg'
import { PosthornError } from '../../../errors.ts'

/** What of a URL `pg` makes one setting of. */
const PARAMETERS = ['ssl', 'sslmode', 'sslcert', 'sslkey', 'sslrootcert', 'uselibpqcompat'] as const

type Encryption = Exclude<pg.ClientConfig['ssl'], undefined>

export class Certificates {
  /** Without what is about encryption. */
  readonly connectionString: string
  readonly #whole: string
  readonly #encryption: Encryption

  /** Throws POSTHORN_INVALID_OPTION when a file cannot be read, or the URL says what `pg` does not understand. */
  constructor(connectionString: string) {
    this.#whole = connectionString
    const url = new URL(connectionString)
    for (const name of PARAMETERS) url.searchParams.delete(name)
    this.connectionString = url.href
    try {
      this.#encryption = this.#read()
    } catch (error) {
      const problem = (error as Error).message
      throw new PosthornError('POSTHORN_INVALID_OPTION', { option: 'url', problem }, { cause: error })
    }
  }

  /** The same object for all connections, also for those that are made after they were read again. */
  get encryption(): Encryption {
    return this.#encryption
  }

  readAgain(): void {
    if (typeof this.#encryption !== 'object') return
    try {
      const { key, ...others } = this.#read() as Exclude<Encryption, boolean>
      Object.assign(this.#encryption, others, key === undefined ? {} : { key })
    } catch {
      // Those that were read before may still be good.
    }
  }

  // A client that never connects: `pg` has no other way to say what it makes of a URL.
  #read(): Encryption {
    return Reflect.get(new pg.Client({ connectionString: this.#whole }), 'ssl') as Encryption
  }
}
