import assert from 'node:assert/strict'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import nodemailer from 'nodemailer'
import Stripe from 'stripe'
import { isOutage } from '../../src/consumer/breaker/is-outage.ts'
import { reasonOf } from '../../src/consumer/breaker/reason.ts'
import { retryAfterMs } from '../../src/consumer/breaker/retry-after.ts'
import { readBreaker } from '../../src/consumer/breaker/settings.ts'
import { Discard, RetryAfter } from '../../src/consumer/outcomes.ts'
import { PosthornError } from '../../src/errors.ts'

const NOW_MS = Date.UTC(2026, 10, 23, 12)

const coded = (code: unknown) => Object.assign(new Error('failed'), { code })

async function portOf(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return (server.address() as AddressInfo).port
}

/** A port on which nothing listens. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  return assert.fail('It did not reject.')
}

/** An SMTP server that greets, and answers each command with what `answers` has for its first word. */
function smtpServer(greeting: string, answers: Readonly<Record<string, string>> = {}): Server {
  return createServer((socket: Socket) => {
    socket.on('error', () => {})
    socket.write(`${greeting}\r\n`)
    socket.on('data', (line) => {
      const answer = answers[String(line).slice(0, 4)] ?? '250 ok'
      if (answer === 'hang up') socket.destroy()
      else socket.write(`${answer}\r\n`)
    })
  })
}

function mailThrough(port: number): Promise<unknown> {
  const transport = nodemailer.createTransport({ host: '127.0.0.1', port, ignoreTLS: true })
  return transport.sendMail({ from: 'a@example.com', to: 'b@example.com', text: 'Hello' })
}

describe('an outage', () => {
  for (const code of ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EAI_AGAIN', 'UND_ERR_HEADERS_TIMEOUT']) {
    test(`is an error with the code ${code}`, () => assert.equal(isOutage(coded(code)), true))
  }

  for (const status of [429, 502, 503, 504]) {
    test(`is HTTP status ${status}, wherever clients put it`, () => {
      assert.equal(isOutage({ status }), true)
      assert.equal(isOutage({ statusCode: status }), true)
      assert.equal(isOutage(Object.assign(new Error('axios'), { response: { status } })), true)
      assert.equal(isOutage({ response: { statusCode: status } }), true)
    })
  }

  test('is a timeout, of an AbortSignal or of a handler', () => {
    assert.equal(isOutage(new DOMException('too long', 'TimeoutError')), true)
    assert.equal(isOutage(new PosthornError('POSTHORN_HANDLER_TIMEOUT', { subscription: 's', timeoutMs: 1 })), true)
  })

  test('is found among causes and the errors of an AggregateError', () => {
    const refused = coded('ECONNREFUSED')
    assert.equal(isOutage(new Error('outer', { cause: new Error('inner', { cause: refused }) })), true)
    assert.equal(isOutage(new AggregateError([new Error('other'), refused])), true)
    assert.equal(isOutage(new TypeError('fetch failed', { cause: new AggregateError([refused]) })), true)
  })

  test('is looked for five levels deep, and in circles only once', () => {
    const nested = (depth: number): unknown =>
      depth === 1 ? coded('EPIPE') : new Error('outer', { cause: nested(depth - 1) })
    assert.equal(isOutage(nested(5)), true)
    assert.equal(isOutage(nested(6)), false)
    const circle: Error & { errors?: unknown } = new Error('circle')
    circle.cause = circle
    circle.errors = Array.from({ length: 100_000 }, () => circle)
    assert.equal(isOutage(circle), false)
  })

  test('is the cause of a RetryAfter, but not of a Discard', () => {
    const cause = coded('ECONNREFUSED')
    assert.equal(isOutage(new RetryAfter('5s', { cause })), true)
    assert.equal(isOutage(new RetryAfter('5s')), false)
    assert.equal(isOutage(new Discard('never', { cause })), false)
  })

  for (const [what, thrown] of [
    ['an ordinary error', new TypeError('x is not a function')],
    ['another status', { status: 500 }],
    ['a code of another kind', coded('ENOENT')],
    ['a mailbox that does not exist', Object.assign(coded('EENVELOPE'), { responseCode: 550 })],
    ['undefined', undefined],
    ['null', null],
    ['a string', 'ECONNREFUSED'],
    ['a number', 503],
  ] as const) {
    test(`is not ${what}`, () => assert.equal(isOutage(thrown), false))
  }

  test('is looked for without harm in hostile values', () => {
    const hostile = new Proxy({}, { get: () => assert.fail('no'), getPrototypeOf: () => assert.fail('no') })
    const { proxy, revoke } = Proxy.revocable([], {})
    revoke()
    for (const value of [hostile, proxy, { cause: hostile, errors: proxy }, { errors: [hostile] }]) {
      assert.equal(isOutage(value), false)
      assert.equal(retryAfterMs(value, NOW_MS), 0)
      assert.equal(typeof reasonOf(value), 'string')
    }
    assert.equal(isOutage({ cause: hostile, errors: [coded('EPIPE')] }), true)
  })
})

describe('an outage of a real client', () => {
  test('is a fetch that is refused, hung up on, or too slow', async (t) => {
    const server = createHttpServer((request) => {
      if (request.url === '/hang-up') request.socket.destroy()
    })
    const url = `http://127.0.0.1:${await portOf(t, server)}`
    t.after(() => server.closeAllConnections())
    const errors = [
      await rejectionOf(fetch(`http://127.0.0.1:${await freePort()}/`)),
      await rejectionOf(fetch(`${url}/hang-up`)),
      await rejectionOf(fetch(`${url}/slow`, { signal: AbortSignal.timeout(1) })),
    ]
    for (const error of errors) assert.equal(isOutage(error), true)
    assert.match(reasonOf(errors[0]), /^fetch failed: connect ECONNREFUSED/)
  })

  test('is Stripe when it cannot be reached or has too much to do, and not a wrong request', async (t) => {
    const server = createHttpServer((request, response) => {
      const status = Number(/\d{3}/.exec(request.url ?? '')?.[0])
      response.writeHead(status, { 'content-type': 'application/json', 'retry-after': '7' })
      response.end('{"error":{"message":"no"}}')
    })
    const port = await portOf(t, server)
    t.after(() => server.closeAllConnections())
    const request = (to: number, status: number) => {
      const stripe = new Stripe('sk_test', { host: '127.0.0.1', port: to, protocol: 'http', maxNetworkRetries: 0 })
      return rejectionOf(stripe.customers.retrieve(`customer-${status}`))
    }
    assert.equal(isOutage(await request(await freePort(), 200)), true)
    assert.equal(isOutage(await request(port, 503)), true)
    assert.equal(isOutage(await request(port, 404)), false)
    const tooMany = await request(port, 429)
    assert.equal(isOutage(tooMany), true)
    assert.equal(retryAfterMs(tooMany, NOW_MS), 7_000)
  })

  test('is a mail server that is away, hangs up or is closing, and not one that refuses an address', async (t) => {
    const through = async (server: Server) => rejectionOf(mailThrough(await portOf(t, server)))
    assert.equal(isOutage(await rejectionOf(mailThrough(await freePort()))), true)
    assert.equal(isOutage(await through(smtpServer('421 4.3.2 too busy'))), true)
    assert.equal(isOutage(await through(smtpServer('220 here', { MAIL: 'hang up' }))), true)
    assert.equal(isOutage(await through(smtpServer('220 here', { MAIL: '421 4.3.0 closing' }))), true)
    assert.equal(isOutage(await through(smtpServer('220 here', { RCPT: '550 5.1.1 no such user' }))), false)
  })
})

describe('Retry-After', () => {
  const cases: readonly (readonly [string, unknown, number])[] = [
    ['seconds as a property', { retryAfter: 12 }, 12_000],
    ['a fraction of a second', { retryAfter: 0.5294 }, 530],
    ['a header', { headers: { 'retry-after': '90' } }, 90_000],
    ['a header of Headers', { headers: new Headers({ 'Retry-After': '2' }) }, 2_000],
    ['a date', { headers: { 'retry-after': 'Mon, 23 Nov 2026 12:00:30 GMT' } }, 30_000],
    ['a date that is over', { headers: { 'retry-after': 'Mon, 23 Nov 2026 11:00:00 GMT' } }, 0],
    ['the header of a response', { response: { headers: { 'retry-after': '3' } } }, 3_000],
    ['the header of a cause', new Error('outer', { cause: { headers: { 'retry-after': '4' } } }), 4_000],
    ['a thrown RetryAfter', new RetryAfter('45s', { cause: { retryAfter: 10 } }), 45_000],
    ['more than an hour', { retryAfter: 86_400 }, 3_600_000],
    ['infinitely long', { retryAfter: Number.POSITIVE_INFINITY }, 3_600_000],
    ['nonsense', { headers: { 'retry-after': 'soon' } }, 0],
    ['something negative', { retryAfter: -5 }, 0],
    ['no number', { retryAfter: Number.NaN }, 0],
    ['nothing', new Error('failed'), 0],
  ]
  for (const [what, error, expectedMs] of cases) {
    test(`can be ${what}`, () => assert.equal(retryAfterMs(error, NOW_MS), expectedMs))
  }
})

describe('the breaker option', () => {
  test('is off unless it is asked for', () => {
    assert.equal(readBreaker(undefined), undefined)
    assert.equal(readBreaker(false), undefined)
  })

  test('has defaults', () => {
    const defaults = { isOutage, threshold: 5, probe: { delayMs: 1_000, maxMs: 30_000 } }
    assert.deepEqual(readBreaker(true), defaults)
    assert.deepEqual(readBreaker({}), defaults)
  })

  test('takes a delay beyond the default longest one', () => {
    assert.deepEqual(readBreaker({ probe: { delay: '2m' } })?.probe, { delayMs: 120_000, maxMs: 120_000 })
  })

  for (const wrong of [
    { threshold: 0 },
    { threshold: 1.5 },
    { isOutage: 'yes' },
    { tresholds: 5 },
    { probe: { delay: 0 } },
    { probe: { delay: '10s', max: '5s' } },
    { probe: 5 },
    'on',
  ]) {
    test(`refuses ${JSON.stringify(wrong)}`, () => {
      assert.throws(() => readBreaker(wrong as never), { code: 'POSTHORN_INVALID_OPTION' })
    })
  }
})
