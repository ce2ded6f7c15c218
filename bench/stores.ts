/** Where the benchmark keeps what it publishes: a store of its own for each run. */
import { randomBytes } from 'node:crypto'
import { Client } from 'pg'
import { type PostgresServer, startPostgres } from '../test/servers/postgres.ts'
import type { Workspace } from './workspace.ts'

export type EngineName = 'sqlite' | 'postgres' | 'memory'

export interface Store {
  readonly url: string
  remove(): Promise<void>
}

export interface Stores {
  /** Whether several processes can share a store. */
  readonly areShared: boolean
  newStore(): Store
  close(): Promise<void>
}

/** Names a server with the right to create schemas, to be measured instead of one that the benchmark starts. */
const ADDRESS_VARIABLE = 'POSTHORN_BENCH_POSTGRES_URL'

export async function openStores(engine: EngineName, workspace: Workspace): Promise<Stores> {
  if (engine === 'postgres') return PostgresStores.open()
  return {
    areShared: engine === 'sqlite',
    newStore() {
      if (engine === 'memory') return { url: 'memory:bench', remove: async () => {} }
      const file = workspace.file()
      return { url: `sqlite:${file}`, remove: async () => workspace.delete(file) }
    },
    close: async () => {},
  }
}

/** Schemas of one server, with its settings as they are delivered. */
class PostgresStores implements Stores {
  readonly areShared = true
  readonly #address: string
  readonly #server: PostgresServer | undefined
  readonly #prefix = `posthorn_bench_${randomBytes(4).toString('hex')}`
  #stores = 0

  private constructor(address: string, server?: PostgresServer) {
    this.#address = address
    this.#server = server
  }

  static async open(): Promise<PostgresStores> {
    const address = process.env[ADDRESS_VARIABLE]
    if (address) return new PostgresStores(address)
    const server = await startPostgres()
    return new PostgresStores(server.url, server)
  }

  newStore(): Store {
    const schema = `${this.#prefix}_${this.#stores++}`
    const url = new URL(this.#address)
    url.searchParams.set('schema', schema)
    return { url: url.href, remove: () => this.#execute(`DROP SCHEMA IF EXISTS ${schema} CASCADE`) }
  }

  async close(): Promise<void> {
    await this.#server?.removeAll()
  }

  async #execute(statement: string): Promise<void> {
    const client = new Client({ connectionString: this.#address })
    await client.connect()
    try {
      await client.query(statement)
    } finally {
      await client.end()
    }
  }
}
