import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { PosthornError } from '../../../src/errors.ts'

const SERVER = 'postgres://me:secret@host:5432/shop'

describe('the address of a Postgres store', () => {
  test('is what pg takes, and settings of our own that pg is not told of', () => {
    const address = parsePostgresAddress(`${SERVER}?schema=jobs&connections=9&pooling=transaction&sslmode=require`)
    assert.deepEqual(address, {
      connectionString: `${SERVER}?sslmode=require`,
      label: 'postgres://host:5432/shop?schema=jobs',
      schema: 'jobs',
      connectionsMax: 9,
      transactionPooling: true,
    })
    const { schema, connectionsMax, transactionPooling } = parsePostgresAddress(SERVER)
    assert.deepEqual([schema, connectionsMax, transactionPooling], ['posthorn', 6, false])
  })

  for (const [wrong, says] of [
    ['?shema=jobs', /did you mean schema\?/],
    ['?Schema=jobs', /did you mean schema\?/],
    ['?connection=3', /did you mean connections\?/],
    ['?sslmod=require', /did you mean sslmode\?/],
    ['?schema=a&schema=b', /the parameter schema twice/],
    ['?schema=pg_jobs', /does not begin with pg_/],
    ['?schema=Jobs', /lower-case SQL name/],
    ['?connections=1', /from 2 on/],
    ['?pooling=statement', /neither transaction nor session/],
  ] as const) {
    test(`refuses ${wrong}`, () => {
      const code = 'POSTHORN_INVALID_OPTION'
      assert.throws(() => parsePostgresAddress(SERVER + wrong), { name: 'PosthornError', code, message: says })
    })
  }

  test('may have whatever else other libraries understand', () => {
    const others = '?channel_binding=require&pgbouncer=true&options=-cjit%3Doff&application_name=shop&ssl=true&sslcrl=x'
    assert.equal(parsePostgresAddress(SERVER + others).connectionString, SERVER + others)
  })

  for (const password of ['se#cret', 'se/cret', 'p@se/cret', 'p@se/cr#et', 'se?cret']) {
    test(`repeats nothing of a password such as ${password} that was not percent-encoded`, () => {
      assert.throws(
        () => parsePostgresAddress(`postgres://me:${password}@host/shop`),
        (error: Error) => {
          assert.ok(error instanceof PosthornError)
          assert.match(error.message, /must be percent-encoded/)
          assert.doesNotMatch(error.message, /cr|p@|se[#/?]/)
          return true
        },
      )
    })
  }
})
