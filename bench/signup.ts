import { queue, topic } from 'posthorn'
import { z } from 'zod'

/** A sign-up as a user's program would define it, 220 bytes of JSON. */
const user = z.object({
  userId: z.string(),
  email: z.email(),
  name: z.string().min(1),
  plan: z.enum(['free', 'team', 'business']),
  locale: z.string(),
  referrer: z.url(),
  newsletter: z.boolean(),
  calledAtUs: z.int(),
})

export const userSignedUp = topic('user.signed_up', {
  schema: user,
  key: ({ userId }) => userId,
})

/** Jobs, of which nothing is kept once they are done, and whose ids are forgotten soon. */
export const welcomeMails = queue('welcome-mails', { schema: user, deduplicateFor: '1m' })

/** The sign-up of user `index`, called for now. */
export function signup(index: number) {
  const number = String(index).padStart(9, '0')
  return {
    userId: `u-${number}`,
    email: `user.${number}@example.com`,
    name: 'Ada Lovelace-Byron',
    plan: 'team' as const,
    locale: 'en-GB',
    referrer: 'https://www.example.com/pricing?source',
    newsletter: true,
    calledAtUs: nowUs(),
  }
}

/** `count` sign-ups of so many users, one after the other, made as they are asked for. */
export function* signups(count: number, users: number = count) {
  for (let index = 0; index < count; index++) yield signup(index % users)
}

/** Microseconds since the Unix epoch: comparable between the processes of one machine. */
export function nowUs(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1_000)
}
