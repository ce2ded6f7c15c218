// A program of somebody who installed Posthorn and writes JavaScript. Its argument is the URL to connect to.
import { connect, topic } from 'posthorn'

const userSignedUp = topic('user.signed_up')
const post = await connect(process.argv[2])
const received = Promise.withResolvers()

post.subscribe(userSignedUp, 'welcome-email', async (event) => received.resolve(event.data))
await post.publish(userSignedUp, { userId: 'u1' })
process.stdout.write(`received ${(await received.promise).userId}\n`)
await post.close()
