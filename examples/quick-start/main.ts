// #region quick-start
import { connect, topic } from 'posthorn'
import { z } from 'zod'

const userSignedUp = topic('user.signed_up', { schema: z.object({ userId: z.string(), email: z.email() }) })
const post = await connect('sqlite:data/posthorn.db', { closeOnSignals: true })

post.subscribe(userSignedUp, 'welcome-email', async (event) => {
  console.log(`Welcome, ${event.data.email}!`) // throws? tried again; the process dies? delivered again
})

await post.publish(userSignedUp, { userId: 'u1', email: 'ada@example.com' }) // resolves once it is on disk
// #endregion
