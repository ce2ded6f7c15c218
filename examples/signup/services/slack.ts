import type { CallOptions, NewUser } from '../events.ts'
import { postJson, readAddress } from './addresses.ts'

const url = readAddress('SLACK_WEBHOOK_URL')

/** Tells the team. An incoming webhook knows no idempotency key: after a crash a line may appear twice. */
export async function notifySlack(user: NewUser, { signal }: CallOptions): Promise<void> {
  await postJson(url, { text: `New sign-up: ${user.name} (${user.email})` }, {}, signal)
}
