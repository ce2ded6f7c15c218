/** What a URL, a database and a network can be like. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { DatabaseError } from 'pg'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { isConnectionFailure } from '../../../src/engines/postgres/database/failure.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { PosthornError } from '../../../src/errors.ts'
import { sharedPostgres, whyNoPostgres } from '../../servers/shared-postgres.ts'
import { PostgresProxy } from './faults-proxy.ts'
import { atEnd, coded, events, eventually, Inbox, newStore, open, openClient } from './faults-stage.ts'

async function certificateFile(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'posthorn-certificate-'))
  context.after(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'root.pem')
  await writeFile(file, 'of a server that is not asked for it')
  return file
}

function saidByServer(code: string, severity: string): Error {
  return Object.assign(new DatabaseError('no', 0, 'error'), { code, severity })
}

describe('connecting to Postgres', { skip: await whyNoPostgres() }, () => {
  test('a certificate file that is missing for a moment ends nothing', async (context) => {
    const file = await certificateFile(context)
    const { url, admin } = await newStore(context, { sslmode: 'disable', sslrootcert: file, application_name: file })
    const post = await open(context, url)
    const inbox = new Inbox()
    await post.subscribe(events, 'all', inbox.handler).ready
    await rm(file)
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [
      file.slice(0, 63),
    ])
    await eventually(() => post.publish(events, { label: 'a' }))
    await inbox.has(['a'])
  })

  test('one that is not there is refused at once', async (context) => {
    const { url } = await newStore(context, { sslrootcert: '/nowhere/root.pem' })
    await assert.rejects(open(context, url), coded('POSTHORN_INVALID_OPTION'))
  })

  test('a database that cannot hold every character is refused', async (context) => {
    const server = new URL(await sharedPostgres())
    const name = `posthorn_latin1_${process.pid}`
    const admin = await openClient(context, server.href)
    await admin.query(`CREATE DATABASE ${name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
    atEnd(context, () => admin.query(`DROP DATABASE ${name} WITH (FORCE)`))
    server.pathname = `/${name}`
    await assert.rejects(open(context, server.href), coded('POSTHORN_UNSUPPORTED'))
  })

  const unusable: readonly (readonly [what: string, change: Partial<URL>])[] = [
    ['that does not know the user', { username: 'nobody' }],
    ['without encryption, which is asked for,', { search: '?sslmode=require' }],
    ['whose name nobody knows', { hostname: 'nobody.invalid' }],
    ['at a port where nobody listens', { port: '1' }],
  ]
  for (const [what, change] of unusable) {
    test(`a server ${what} cannot be used`, async (context) => {
      const url = Object.assign(new URL((await newStore(context)).url), change)
      await assert.rejects(open(context, url.href), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    })
  }

  test('a server that takes connections and says nothing cannot be used', async (context) => {
    const silent = createServer()
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    context.after(() => silent.close())
    const { port } = silent.address() as AddressInfo
    const database = new Database(parsePostgresAddress(`postgres://user@127.0.0.1:${port}/database`))
    await assert.rejects(migrate(database, { answerMsMax: 50 }), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    await database.close()
  })

  test('what waits for an answer that does not come can be cut off', async (context) => {
    const { url } = await newStore(context)
    const proxy = await PostgresProxy.start(context, url)
    const database = new Database(parsePostgresAddress(proxy.url))
    const one = { name: 'test_one', text: 'SELECT 1 AS one' }
    await database.rows(one)
    const connected = database.newClient()
    connected.on('error', () => {})
    await connected.connect()
    proxy.freeze()
    const asked = assert.rejects(database.rows(one), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    const ended = assert.rejects(connected.query('SELECT 1'))
    // What was asked is on its way.
    await new Promise(setImmediate)
    database.cutOff(new PosthornError('POSTHORN_CLOSED', { operation: 'it' }))
    await Promise.all([asked, ended])
    await assert.rejects(database.rows(one), coded('POSTHORN_CLOSED'))
    await database.close()
  })

  const failures: readonly (readonly [what: string, failure: Error, ofConnection: boolean])[] = [
    ['an unreachable network', Object.assign(new Error('no route'), { code: 'ENETUNREACH' }), true],
    ['a password that is not there', new Error('SASL: SCRAM-SERVER-FIRST-MESSAGE: no password'), true],
    ['broken encryption', Object.assign(new Error('bad record'), { code: 'ERR_SSL_BAD_RECORD_MAC' }), true],
    ['a connection that the server ends', saidByServer('25P04', 'FATAL'), true],
    ['a statement that the server refuses', saidByServer('23505', 'ERROR'), false],
    ['an error of the engine', new PosthornError('POSTHORN_CLOSED', { operation: 'it' }), false],
    ['an error of the program', new TypeError('no function'), false],
  ]
  for (const [what, failure, ofConnection] of failures) {
    test(`${what} ${ofConnection ? 'leaves' : 'does not leave'} the outcome unknown`, () => {
      assert.equal(isConnectionFailure(failure), ofConnection)
    })
  }
})
