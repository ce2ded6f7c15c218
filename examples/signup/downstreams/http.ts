import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Service } from './service.ts'

export interface Answer {
  readonly status: number
  readonly body: object | string
}

type Respond = (request: IncomingMessage, body: string) => Promise<Answer> | Answer

/** Starts an HTTP server on a free port, and resolves with its URL. */
export function startHttp(respond: Respond): Promise<string> {
  const server = createServer({ keepAliveTimeout: 60_000 }, async (request, response) => {
    const { status, body } = await respond(request, await readBody(request))
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    response.writeHead(status, { 'content-type': typeof body === 'string' ? 'text/plain' : 'application/json' })
    response.end(text)
  })
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
  })
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

const broken: Answer = { status: 503, body: { error: 'Service unavailable' } }

/** A third-party fraud check: `POST` of a user gives a score. */
export function startFraud(service: Service): Promise<string> {
  return startHttp(async (_request, body) => {
    if (service.broken) return broken
    const { email } = JSON.parse(body) as { email: string }
    await service.takeTime()
    service.count(email)
    return { status: 200, body: { email, score: Math.round(Math.random() * 100) } }
  })
}

/** Slack's incoming webhook. */
export function startSlack(service: Service): Promise<string> {
  return startHttp(async (_request, body) => {
    if (service.broken) return broken
    const { text } = JSON.parse(body) as { text?: string }
    if (text === undefined) return { status: 400, body: 'no_text' }
    await service.takeTime()
    service.count(/\((.+)\)$/.exec(text)?.[1] ?? text)
    return { status: 200, body: 'ok' }
  })
}

/** The part of Stripe's API that creates customers, with its idempotency keys. */
export function startStripe(service: Service): Promise<string> {
  const answers = new Map<string, Promise<Answer>>()
  return startHttp((request, body) => {
    if (service.broken) return broken
    const refusal = refuse(request)
    if (refusal !== undefined) return refusal
    const key = String(request.headers['idempotency-key'] ?? randomUUID())
    const earlier = answers.get(key)
    if (earlier !== undefined) return earlier
    const answer = create(service, new URLSearchParams(body))
    answers.set(key, answer)
    return answer
  })
}

function refuse(request: IncomingMessage): Answer | undefined {
  const error = (status: number, message: string) => ({
    status,
    body: { error: { type: 'invalid_request_error', message } },
  })
  if (request.headers.authorization === undefined) return error(401, 'You did not provide an API key.')
  if (request.method !== 'POST' || request.url !== '/v1/customers') return error(404, 'Unrecognized request URL.')
  return undefined
}

async function create(service: Service, form: URLSearchParams): Promise<Answer> {
  await service.takeTime()
  service.count(form.get('email') ?? '')
  const id = `cus_${randomUUID().replaceAll('-', '').slice(0, 14)}`
  const created = Math.floor(Date.now() / 1000)
  const metadata = { user_id: form.get('metadata[user_id]') }
  const { email, name } = Object.fromEntries(form)
  return { status: 200, body: { id, object: 'customer', created, email, name, metadata, livemode: false } }
}
