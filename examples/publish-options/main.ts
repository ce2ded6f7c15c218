import { connect, PosthornError, topic } from 'posthorn'
import { z } from 'zod'

const reminderDue = topic('reminder.due', {
  schema: z.object({ userId: z.string(), text: z.string() }),
  maxBacklog: 3,
})
await using post = await connect('sqlite:data/reminders.db')
const reminder = { userId: 'u1', text: 'Your trial ends tomorrow.' }

// #region deduplicate
const first = await post.publish(reminderDue, reminder, { id: 'trial-end-u1' })
const second = await post.publish(reminderDue, reminder, { id: 'trial-end-u1' })
console.log(first.duplicate, second.duplicate)
// #endregion

// #region delay
await post.publish(reminderDue, reminder, { delay: '2h' })
await post.publish(reminderDue, reminder, { deliverAt: new Date('2030-01-01T09:00:00Z') })
// #endregion

// #region expire
await post.publish(reminderDue, reminder, { expiresIn: '10m' })
// #endregion

// #region headers
await post.publish(reminderDue, reminder, { key: 'u1', headers: { tenant: 'acme' } })
// #endregion

// #region error
try {
  await post.publish(reminderDue, reminder)
} catch (error) {
  if (!(error instanceof PosthornError)) throw error
  console.log(error.code, error.retryable, error.details)
}
// #endregion

const greeting = topic<{ readonly userId: string }>('greeting')

// #region bulk
const users = [{ userId: 'u2' }, { userId: 'u3' }]
const result = await post.publishAll(greeting, users, ({ userId }) => ({ id: `hello-${userId}` }))
console.log(`${result.published} published, ${result.duplicates} known already`)
// #endregion

for (const { topic: name, messages, delayed } of await post.admin.topics()) {
  console.log(`${name}: ${messages} stored, ${delayed} delayed`)
}
