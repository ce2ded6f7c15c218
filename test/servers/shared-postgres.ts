/**
 * One Postgres server for a whole test run. In order of preference it is
 * - the one that POSTHORN_TEST_POSTGRES_URL names, with the right to create databases,
 * - the one that `global-setup.ts` started for the run and named in that variable,
 * - one that this process starts when it first asks, as when a test file is run by itself.
 *
 * Tests share nothing on it but the server: each takes a database or a schema of its own.
 */
import { randomBytes } from 'node:crypto'
import { Client } from 'pg'
import { startPostgres } from './postgres.ts'
import { whyNoOwnPostgres } from './postgres-binaries.ts'

export const ADDRESS_VARIABLE = 'POSTHORN_TEST_POSTGRES_URL'

let address: Promise<string> | undefined

/** The server's URL. Rejects with `PostgresUnavailable` where no Postgres can run. */
export function sharedPostgres(): Promise<string> {
  address ??= findOrStart()
  return address
}

async function findOrStart(): Promise<string> {
  return process.env[ADDRESS_VARIABLE] || (await startPostgres()).url
}

/** Why tests that use the shared server are to be skipped, or false; see `whyNoOwnPostgres`. */
export async function whyNoPostgres(): Promise<string | false> {
  return process.env[ADDRESS_VARIABLE] ? false : whyNoOwnPostgres()
}

export interface TestSpace {
  /** Connections to it find and create tables in this space. */
  readonly url: string
  /** What the database or the schema is called. */
  readonly name: string
  /** Removes it and all that it holds; of a database, ends what connections are left. */
  drop(): Promise<void>
}

/** An empty database. */
export async function newDatabase(): Promise<TestSpace> {
  const server = await sharedPostgres()
  const name = newName()
  await execute(server, `CREATE DATABASE ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  return { url: url.href, name, drop: () => execute(server, `DROP DATABASE ${name} WITH (FORCE)`) }
}

/** An empty schema, made the first one of the search path: far cheaper than a database. */
export async function newSchema(): Promise<TestSpace> {
  const server = await sharedPostgres()
  const name = newName()
  await execute(server, `CREATE SCHEMA ${name}`)
  const url = new URL(server)
  url.searchParams.set('options', `-c search_path=${name}`)
  return { url: url.href, name, drop: () => execute(server, `DROP SCHEMA ${name} CASCADE`) }
}

function newName(): string {
  return `posthorn_test_${randomBytes(8).toString('hex')}`
}

async function execute(url: string, statement: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
