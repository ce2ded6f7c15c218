import { createTransport } from 'nodemailer'
import type { CallOptions, NewUser } from '../events.ts'
import { readAddress } from './addresses.ts'

const transport = createTransport({
  url: readAddress('SMTP_URL'),
  pool: true,
  maxConnections: 200,
  maxMessages: Number.POSITIVE_INFINITY,
  connectionTimeout: 5_000,
  socketTimeout: 60_000,
})

/** Sends the welcome email. SMTP knows no idempotency key; the Message-ID lets mail programs recognise a repetition. */
export async function sendWelcomeEmail(user: NewUser, { idempotencyKey, signal }: CallOptions): Promise<void> {
  await transport.sendMail({
    from: 'Signup Example <hello@signup.example>',
    to: user.email,
    subject: `Welcome, ${user.name}`,
    text: `Hello ${user.name},\n\nyour account is ready.\n`,
    messageId: `<${idempotencyKey}@signup.example>`,
    signal,
  })
}

export function closeEmail(): void {
  transport.close()
}
