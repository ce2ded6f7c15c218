/**
 * The sign-up endpoint, twice: `POST /signup?mode=sync` does everything within the request, `?mode=async` stores the
 * user and two events in one transaction and answers.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect, message } from 'posthorn'
import { z } from 'zod'
import { argumentAfter, reportReady, whenAskedToStop } from './child.ts'
import { accountChanged, type NewUser, userSignedUp } from './events.ts'
import { createCustomer } from './services/customers.ts'
import { closeEmail, sendWelcomeEmail } from './services/email.ts'
import { checkFraud } from './services/fraud.ts'
import { notifySlack } from './services/slack.ts'
import { Users } from './users.ts'

const signUpForm = z.object({ email: z.email(), name: z.string().min(1).max(200) })

const file = argumentAfter('--file')
const users = new Users(file)
const post = await connect(`sqlite:${file}`)
await post.ensureTopics(userSignedUp, accountChanged)

async function signUpAsync(user: NewUser): Promise<number> {
  await users.insert(user, (tx) =>
    post.publishAll(
      [message(userSignedUp, user), message(accountChanged, { userId: user.userId, change: 'created' })],
      { tx },
    ),
  )
  return 202
}

async function signUpSync(user: NewUser): Promise<number> {
  await users.insert(user)
  const options = { idempotencyKey: user.userId, signal: AbortSignal.timeout(30_000) }
  try {
    for (const call of [sendWelcomeEmail, checkFraud, createCustomer, notifySlack]) await call(user, options)
    return 201
  } catch {
    return 502
  }
}

async function readForm(request: IncomingMessage): Promise<z.infer<typeof signUpForm> | undefined> {
  try {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    return signUpForm.safeParse(JSON.parse(Buffer.concat(chunks).toString())).data
  } catch {
    return undefined
  }
}

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
  if (request.method !== 'POST' || pathname !== '/signup') return answer(response, 404, { error: 'POST /signup' })
  const form = await readForm(request)
  if (form === undefined) return answer(response, 400, { error: 'Send JSON: {"email": "...", "name": "..."}' })
  const user = { userId: randomUUID(), ...form }
  const status = searchParams.get('mode') === 'sync' ? await signUpSync(user) : await signUpAsync(user)
  answer(response, status, { userId: user.userId })
}

function answer(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
  response.end(text)
}

const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  handle(request, response).catch((error: unknown) => {
    console.error(error)
    answer(response, 500, { error: 'The sign-up failed.' })
  })
})

server.listen(0, '127.0.0.1', () => reportReady({ port: (server.address() as AddressInfo).port }))

whenAskedToStop(async () => {
  server.close()
  server.closeIdleConnections()
  await users.close()
  await post.close()
  closeEmail()
})
