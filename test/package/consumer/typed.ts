// A program of somebody who installed Posthorn and writes TypeScript. Its argument is the URL to connect to.
import { connect, type PosthornError, topic } from 'posthorn'
import { z } from 'zod'

const userSignedUp = topic('user.signed_up', {
  schema: z.object({ userId: z.string(), email: z.email() }),
  key: (user) => user.userId,
})
const post = await connect(process.argv[2] ?? 'memory:')
const received = Promise.withResolvers<string>()

post.subscribe(
  userSignedUp,
  'welcome-email',
  async (event, { signal }) => {
    signal.throwIfAborted()
    received.resolve(event.data.email)
    // @ts-expect-error the schema has no such property: types flow from topic() to the handler
    event.data.telephone satisfies unknown
  },
  { concurrency: 2, timeout: '5s', retry: { attempts: 2 } },
)

// @ts-expect-error a payload that lacks a property does not compile, and is refused when it runs
const refusal = await post.publish(userSignedUp, { userId: 'u1' }).catch((error: PosthornError) => error.code)
await post.publish(userSignedUp, { userId: 'u1', email: 'a@example.com' })
process.stdout.write(`received ${await received.promise} ${refusal}\n`)
await post.close()
